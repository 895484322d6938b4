from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import Beams

END = 0


def _paths(beams: list[list[int]], lengths: list[int], output_length: int = 9) -> list[list[int]]:
    found = Beams(
        output_ids=np.array(beams, dtype=np.int32).reshape(len(beams), -1),
        lengths=np.array(lengths, dtype=np.int32),
        log_probs=np.full(len(lengths), -1.0),
    )
    return found.paths(terminator=END, output_length=output_length)


def test_padding_is_cut_from_beams() -> None:
    beams = [[4, END, -1], [5, 6, END], [7, 7, 7]]
    assert _paths(beams, [2, 3, 3], 3) == [[4, END], [5, 6, END], [7, 7, 7]]
    assert (
        Beams(
            output_ids=np.zeros((0, 0), np.int32),
            lengths=np.zeros(0, np.int32),
            log_probs=np.zeros(0),
        ).paths(terminator=END, output_length=3)
        == []
    )


@pytest.mark.parametrize(
    ("beam", "path"),
    [
        ([4, END], [4, END]),
        ([4, END, 7, END], [4, END]),
        ([4, 5], [4, 5, END]),
        ([], [END]),
        ([4, 5, 6], [4, 5, 6]),
        ([4, 5, END], [4, 5, END]),
        ([4, 5, 6, 7], [4, 5, 6, 7]),
    ],
)
def test_a_beam_shorter_than_was_asked_for_has_ended(beam: list[int], path: list[int]) -> None:
    assert _paths([beam], [len(beam)], 3) == [path]


GOOD: dict[str, Any] = {
    "output_ids": np.zeros((2, 3), dtype=np.int32),
    "lengths": np.array([1, 3], dtype=np.int32),
    "log_probs": np.array([-1.0, -2.0]),
    "frontier_log_mass": -1.0,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lengths": np.array([1])}, r"output_ids: shape \(2, 3\) does not fit 1 sequence lengths"),
        ({"lengths": np.array([1, 2, 3])}, "output_ids: shape"),
        ({"output_ids": np.zeros(6)}, r"output_ids: shape \(6,\)"),
        ({"output_ids": np.zeros((2, 2, 3))}, "output_ids: shape"),
        ({"lengths": np.array([1, 4])}, "sequence_length: found 1 to 4, expected 0 to 3"),
        ({"lengths": np.array([-1, 3])}, "sequence_length: found -1 to 3"),
        ({"log_probs": np.array([-1.0])}, "cum_log_probs: expected 2 log-probabilities"),
        ({"log_probs": np.array([-1.0, np.nan])}, "cum_log_probs: expected 2 log-prob"),
        ({"log_probs": np.array([99.0, -1.0])}, "cum_log_probs: expected 2 log-prob"),
        ({"frontier_log_mass": np.nan}, "frontier_log_mass: found nan, expected a log-prob"),
        ({"frontier_log_mass": 0.5}, r"frontier_log_mass: found 0\.5"),
    ],
)
def test_impossible_beams_are_refused(changed: dict[str, Any], message: str) -> None:
    Beams(**GOOD)
    with pytest.raises(ModelOutputError, match=message):
        Beams(**(GOOD | changed))
