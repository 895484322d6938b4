from __future__ import annotations

import socket
from pathlib import Path

import pytest

from adprior_bulk.run import ray_directory
from adprior_bulk.run.ray_directory import short_directory
from adprior_runtime.errors import EnvironmentProblemError

SOCKET = "session_2026-11-29_08-26-20_546567_4194304/sockets/plasma_store"


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set `TMPDIR` to 90 characters or more, as batch systems do."""
    place = tmp_path / ("d" * max(90 - len(str(tmp_path)) - 1, 8))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def test_a_long_tmpdir_is_used_through_a_short_link(long: Path) -> None:
    with short_directory() as directory:
        assert directory is not None
        path = Path(directory) / SOCKET
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        assert (long / "ray" / SOCKET).exists()
        place = Path(directory).parent
    assert not place.exists()
    assert (long / "ray" / SOCKET).exists()


def test_rays_own_variable_comes_first(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    with short_directory() as directory:
        assert directory is None
    monkeypatch.setenv("RAY_TMPDIR", str(long / "other"))
    with short_directory() as directory:
        assert directory is not None
        assert Path(directory).resolve() == (long / "other" / "ray").resolve()


@pytest.mark.parametrize("length", [39, 40])
def test_a_short_tmpdir_needs_no_link(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    place = "/tmp/".ljust(length, "x")
    fits = len(f"{place}/ray/{SOCKET}") <= 107
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    monkeypatch.setenv("TMPDIR", place)
    with short_directory() as directory:
        assert (directory is None) == fits


def test_without_a_link_the_error_has_the_variable_its_length_and_the_limit(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_directory, "_LINK_PARENTS", (str(long / "nowhere"),))
    message = rf"TMPDIR has {len(str(long))} characters.* room for 39 \(AF_UNIX paths have 107\)"
    with pytest.raises(EnvironmentProblemError, match=message), short_directory():
        pass
