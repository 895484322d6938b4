from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adprior_build.training.lower_states import LowerStates
from adprior_build.training.windows import Window
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


class Stopped(Lower):
    """Is killed before the second batch."""

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        if self.windows:
            raise KeyboardInterrupt
        return super().__call__(ids)


@pytest.fixture(autouse=True)
def _save_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adprior_build.training.lower_states._SAVE_EVERY_S", -1.0)


def store(directory: Path, windows: list[Window] = WINDOWS) -> LowerStates:
    return LowerStates(directory, windows, hidden=HIDDEN, batch_size=2)


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
    states, lower = store(tmp_path), Lower()
    states.fill(lower, "a")
    assert lower.windows == 5  # two of the six are equal
    assert states.tokens == 27
    assert (tmp_path / "lower_states.bin").stat().st_size == states.size_bytes == 27 * 16
    assert_holds(states)


def test_a_killed_run_is_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).fill(Stopped(), "a")
    states, lower = store(tmp_path), Lower()
    states.fill(lower, "a")
    assert lower.windows == 3
    assert_holds(states)
    again = Lower()
    store(tmp_path).fill(again, "a")
    assert again.windows == 0


@pytest.mark.parametrize("damage", ["other model", "one bit", "no index"])
def test_what_does_not_belong_or_is_damaged_is_computed_again(tmp_path: Path, damage: str) -> None:
    store(tmp_path).fill(Lower(), "a")
    path = tmp_path / "lower_states.bin"
    if damage == "one bit":
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        content[-1] ^= 1
        path.write_bytes(content.tobytes())
    if damage == "no index":
        (tmp_path / "lower_states.json").unlink()
    states, lower = store(tmp_path), Lower()
    states.fill(lower, "b" if damage == "other model" else "a")
    assert lower.windows == (1 if damage == "one bit" else 5)
    assert_holds(states)


def test_a_disk_without_room_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    lower = Lower()
    with pytest.raises(InvalidInputError, match=r"needs 0.0 GB: 0.0 GB are free; make room"):
        store(tmp_path).fill(lower, "a")
    assert lower.windows == 0
