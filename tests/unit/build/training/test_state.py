from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from adprior_build.training import state as training_state
from adprior_build.training.state import KeptState, kept_state
from adprior_runtime.errors import InvalidInputError

IDENTITY = {"seed": 1, "events": "a" * 64, "learning_rate": 0.1, "cut": None}
POSITION = {"epoch": 2, "step": 3, "loss_sum": 0.1 + 0.2, "best_loss": None}
TENSORS = {"weights/a": torch.arange(6.0).reshape(2, 3), "step/a": torch.tensor(5.0)}
BEST = {"a": torch.ones(2)}


def keep(directory: Path, identity: Mapping[str, Any] = IDENTITY, *, best: int | None = 1) -> None:
    """Leave a state in the directory, as a killed training does."""
    with suppress(KeyboardInterrupt), opened(directory) as keeper:
        keeper.begin(identity)
        keeper.save(POSITION, TENSORS, BEST, best)
        raise KeyboardInterrupt


def opened(directory: Path, *, restart: bool = False) -> Any:
    return kept_state(directory, minutes=10, restart=restart)


def read(directory: Path, identity: Mapping[str, Any] = IDENTITY) -> KeptState | None:
    found: list[KeptState | None] = []
    with suppress(KeyboardInterrupt), opened(directory) as keeper:
        found.append(keeper.begin(identity))
        raise KeyboardInterrupt
    return found[0]


def save_more(directory: Path) -> None:
    with opened(directory) as keeper:
        keeper.begin(IDENTITY)
        keeper.save(POSITION | {"epoch": 9}, TENSORS, {"a": torch.zeros(2)}, 8)


def refused(directory: Path, identity: Mapping[str, Any] = IDENTITY) -> str:
    with pytest.raises(InvalidInputError) as error, opened(directory) as keeper:
        keeper.begin(identity)
    assert "\n" not in str(error.value)
    assert str(directory) in str(error.value)
    return str(error.value)


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    keep(tmp_path / "work")
    kept = read(tmp_path / "work")
    assert kept is not None
    assert kept.position == POSITION
    assert kept.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(kept.tensors[name], TENSORS[name]) for name in TENSORS)
    assert torch.equal(kept.best["a"], BEST["a"])


def test_before_the_end_of_the_first_epoch_there_are_no_best_weights(tmp_path: Path) -> None:
    keep(tmp_path / "work", best=None)
    kept = read(tmp_path / "work")
    assert kept is not None
    assert kept.best == {}


def test_the_directory_is_removed_on_success(tmp_path: Path) -> None:
    with opened(tmp_path / "work") as keeper:
        assert keeper.begin(IDENTITY) is None
        keeper.save(POSITION, TENSORS, BEST, 1)
    assert read(tmp_path / "work") is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_state_is_kept_and_the_best_weights_are_written_once(tmp_path: Path) -> None:
    with opened(tmp_path) as keeper:
        keeper.begin(IDENTITY)
        keeper.save(POSITION, TENSORS, {}, None)
        keeper.save(POSITION, TENSORS, BEST, 0)
        first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("best-*")}
        keeper.save(POSITION, TENSORS, BEST, 0)
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("best-*")} == first
        keeper.save(POSITION, TENSORS, {"a": torch.zeros(2)}, 3)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["best-4.safetensors", "state.json", "training-4.safetensors",
                         "training.lock"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        ("learning_rate", 0.2, "learning_rate was 0.1, is 0.2"),
        ("cut", "2024-05-01", "cut was None, is 2024-05-01"),
        ("events", "b" * 64, "events changed"),
        ("template", "b" * 64, "template changed"),
    ],
)
def test_another_trainings_state_is_refused(
    tmp_path: Path, name: str, value: Any, difference: str
) -> None:
    keep(tmp_path)
    message = refused(tmp_path, IDENTITY | {name: value})
    assert f"holds the state of another training ({difference})" in message
    assert "--restart" in message
    assert read(tmp_path) is not None


def test_a_setting_is_named_before_the_windows_that_it_changes(tmp_path: Path) -> None:
    keep(tmp_path)
    changed = {"a windows": "b" * 64, "a validation windows": "b" * 64, "seed": "other"}
    assert "(seed was " in refused(tmp_path, IDENTITY | changed)


def test_restart_discards_the_state(tmp_path: Path) -> None:
    keep(tmp_path)
    with opened(tmp_path, restart=True) as keeper:
        assert keeper.begin(IDENTITY | {"seed": 2}) is None
        assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("pattern", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b'{"format": 2}'),
        ("state.json", b'{"format": 2, "identity": 3}'),
        ("training-*", b""),
        ("training-*", "one bit"),
        ("best-*", b"garbage"),
        ("best-*", None),
    ],
)
def test_a_damaged_state_is_refused_and_kept(tmp_path: Path, pattern: str, content: Any) -> None:
    keep(tmp_path)
    (path,) = tmp_path.glob(pattern)
    if content is None:
        path.unlink()
    elif content == "one bit":
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        path.write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    message = refused(tmp_path)
    assert "the training's state is damaged (" in message
    if content == "one bit":
        assert "training-1.safetensors is not what was written" in message
    assert "--restart" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_state_of_another_version_is_refused_and_kept(tmp_path: Path) -> None:
    keep(tmp_path)
    (tmp_path / "state.json").write_text('{"format": 9}')
    message = refused(tmp_path)
    assert "was written by another version of adprior (format 9, expected 2)" in message
    assert "--restart" in message
    assert (tmp_path / "state.json").exists()


@pytest.mark.parametrize("failing", ["save_file", "replace_file"])
def test_a_full_disk_leaves_the_previous_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    keep(tmp_path)

    def full(*_: Any) -> None:
        (tmp_path / "training-2.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training_state, failing, full)
    with pytest.raises(InvalidInputError, match="cannot be written") as error:
        save_more(tmp_path)
    assert ": No space left on device; the previous state is kept; make room" in str(error.value)
    assert not list(tmp_path.glob("*-2.safetensors"))
    kept = read(tmp_path)
    assert kept is not None
    assert kept.position["epoch"] == 2


LARGE = """
import sys, torch
from pathlib import Path
from unit.build.training.test_state import IDENTITY, POSITION, opened
from adprior_runtime.errors import InvalidInputError
try:
    with opened(Path(sys.argv[1])) as keeper:
        keeper.begin(IDENTITY)
        keeper.save(POSITION, {"weights/a": torch.zeros(4_000_000)}, {}, None)
except InvalidInputError as error:
    sys.exit(str(error))
"""


def test_a_file_size_limit_gives_one_clear_line(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "work")],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=limit,  # nothing else runs in this process yet
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the training's state cannot be written: " in line
    assert "File too large" in line
    assert "nothing was saved before; make room and run the same command again" in line
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["notes.txt", "state.json"])
def test_a_directory_without_a_state_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("years of work")
    assert "holds no training's state (no training.lock)" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    assert "is a file" in refused(tmp_path / "work")


def test_two_trainings_do_not_share_a_directory(tmp_path: Path) -> None:
    with opened(tmp_path / "work"):
        message = refused(tmp_path / "work")
        assert f"another training uses this directory (process {os.getpid()})" in message
        assert (tmp_path / "work").is_dir()
