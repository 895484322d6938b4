from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.triton.draining import Draining


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    return []


def test_a_model_that_cannot_load_is_asked_for_once_the_file_is_there(
    tmp_path: Path, asked: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def load(**arguments: Any) -> None:
        asked.append(arguments)
        raise RuntimeError("no such backend")

    draining = Draining(str(tmp_path / "draining"), load)
    draining.look()
    assert not asked
    (tmp_path / "draining").touch()
    draining.look()
    draining.look()
    (call,) = asked
    assert call["model_name"] == "draining"
    assert "none_this_server_is_draining" in call["config"]
    assert "says that it is not ready" in caplog.text


def test_without_adprior_serve_there_is_no_file(asked: list[dict[str, Any]]) -> None:
    Draining(None, lambda **arguments: asked.append(arguments)).look()
    assert not asked
