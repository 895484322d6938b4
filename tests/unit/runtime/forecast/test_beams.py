from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import beams_to_paths, complete_path

END = 0


def test_padding_is_cut_from_beams() -> None:
    output_ids = np.array([[4, END, -1], [5, 6, END], [7, 7, 7]], dtype=np.int32)
    lengths = np.array([2, 3, 0], dtype=np.int32)
    assert beams_to_paths(output_ids, lengths) == [[4, END], [5, 6, END], []]
    assert beams_to_paths(np.zeros((0, 0), np.int32), np.zeros(0, np.int32)) == []


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
    assert complete_path(beam, terminator=END, output_length=3) == path


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((2, 3), [1], r"output_ids: shape \(2, 3\) does not fit 1 sequence lengths"),
        ((2, 3), [1, 2, 3], "output_ids: shape"),
        ((6,), [1] * 6, r"output_ids: shape \(6,\)"),
        ((1, 2, 3), [1], "output_ids: shape"),
        ((2, 3), [1, 4], "sequence_length: found 1 to 4, expected 0 to 3"),
        ((2, 3), [-1, 3], "sequence_length: found -1 to 3"),
    ],
)
def test_beams_that_do_not_fit_their_lengths_are_refused(
    shape: tuple[int, ...], lengths: list[int], message: str
) -> None:
    with pytest.raises(ModelOutputError, match=message):
        beams_to_paths(np.zeros(shape, dtype=np.int32), np.array(lengths, dtype=np.int32))
