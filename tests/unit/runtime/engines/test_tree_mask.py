from __future__ import annotations

import numpy as np

from adprior_runtime.engines.tree_mask import additive_mask


def test_a_mask_shows_the_begin_of_the_sequence_and_what_else_is_seen() -> None:
    mask = additive_mask(np.array([1, 2]), np.array([[1, 1], [3, 4]]), 5)
    assert [np.flatnonzero(row == 0).tolist() for row in mask] == [[0, 1], [0, 1, 3, 4]]
    assert mask.dtype == np.float32
    assert np.isfinite(mask).all()
