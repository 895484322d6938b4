"""One small data set and one checkpoint trained on it, for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.small_checkpoint import SmallData


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def checkpoint(shared_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with validation users and seed 3."""
    output = tmp_path_factory.mktemp("trained") / "checkpoint"
    assert shared_data.train(output, "--validation-share", "0.2", "--seed", "3") == 0
    return output
