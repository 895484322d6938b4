from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from adprior_build.training.lower_states import LowerStates
from adprior_runtime.errors import InvalidInputError
from support.windows import make_window

WINDOWS = [make_window(list(range(3, 3 + length)), [1]) for length in (9, 2, 5, 7, 4, 9)]
HIDDEN = 6


class Lower:
    """Stands in for layers: states that depend on the tokens, some beyond float16."""

    def __init__(self) -> None:
        self.windows = 0

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.windows += len(ids)
        states = ids[..., None] * torch.linspace(-1, 1, HIDDEN) ** 3
        return states * torch.where(ids == 5, 1e6, 1.0)[..., None]


@pytest.fixture(autouse=True)
def _save_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adprior_build.training.lower_states._SAVE_EVERY_S", -1.0)


def opened(directory: Path, lower: Lower, identity: str = "a") -> LowerStates:
    states = LowerStates(directory, WINDOWS, lower, hidden=HIDDEN)
    states.open(identity)
    return states


def assert_holds(states: LowerStates) -> None:
    chosen = [WINDOWS[3], WINDOWS[0], WINDOWS[1]]
    found = states.of(chosen)
    assert found.shape == (3, 9, HIDDEN)
    for row, window in enumerate(chosen):
        tokens = len(window.token_ids)
        expected = Lower()(torch.from_numpy(window.token_ids).long()[None])[0]
        largest = expected.abs().amax(dim=-1, keepdim=True)
        assert ((found[row, :tokens] - expected).abs() <= 2**-11 * largest).all()
        assert not found[row, tokens:].any()


def test_states_are_kept_to_float16_whatever_their_size(tmp_path: Path) -> None:
    lower = Lower()
    states = opened(tmp_path, lower)
    assert_holds(states)
    assert_holds(states)
    assert lower.windows == 3  # each once
    assert (tmp_path / "lower_states.bin").stat().st_size == states.size_bytes == 27 * 16
    states.of(WINDOWS)
    assert lower.windows == 5  # two of the six are equal


def test_a_later_run_computes_what_is_missing(tmp_path: Path) -> None:
    opened(tmp_path, Lower()).of(WINDOWS[:2])
    lower = Lower()
    assert_holds(opened(tmp_path, lower))
    assert lower.windows == 1


@pytest.mark.parametrize(
    ("damage", "computed"), [("other model", 3), ("one bit", 1), ("no index", 3)]
)
def test_what_does_not_belong_or_is_damaged_is_computed_again(
    tmp_path: Path, damage: str, computed: int
) -> None:
    assert_holds(opened(tmp_path, Lower()))
    path = tmp_path / "lower_states.bin"
    if damage == "one bit":
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        content[5] ^= 1
        path.write_bytes(content.tobytes())
    if damage == "no index":
        (tmp_path / "lower_states.json").unlink()
    lower = Lower()
    assert_holds(opened(tmp_path, lower, "b" if damage == "other model" else "a"))
    assert lower.windows == computed


def test_a_disk_without_room_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    with pytest.raises(InvalidInputError, match=r"needs 0.0 GB: 0.0 GB are free; make room"):
        opened(tmp_path, Lower())


def test_a_full_disk_is_one_line_and_leaves_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, Lower()).of(WINDOWS[:2])

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("adprior_build.training.lower_states.replace_file", full)
        with pytest.raises(InvalidInputError, match="cannot be kept: No space left"):
            opened(tmp_path, Lower()).of(WINDOWS)
    lower = Lower()
    opened(tmp_path, lower).of(WINDOWS)
    assert lower.windows == 3
