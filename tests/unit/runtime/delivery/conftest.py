"""Versions of a repository, and the commands in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.deliveries import Adprior, write_repository


@pytest.fixture
def adprior(capsys: pytest.CaptureFixture[str]) -> Adprior:
    return Adprior(capsys)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The same model with another head."""
    return write_repository(tmp_path / "second", seed=2)
