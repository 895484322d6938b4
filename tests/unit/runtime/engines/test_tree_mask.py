from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.tree_mask import causal_mask, node_depths, tree_mask


def test_a_causal_mask_hides_what_comes_later() -> None:
    mask = causal_mask(3)
    assert (mask == 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert mask.dtype == np.float32
    assert np.isfinite(mask).all()


def test_a_new_node_sees_the_prompt_itself_and_its_ancestors() -> None:
    parents = np.array([ROOT, 0, ROOT, 1, 3])
    mask = tree_mask(2, parents, 2)
    assert mask.dtype == np.float32
    assert [np.flatnonzero(row == 0).tolist() for row in mask] == [
        [0, 1, 2, 3, 5],
        [0, 1, 2, 3, 5, 6],
    ]


def test_depths_follow_the_parents_of_earlier_calls_and_of_this_one() -> None:
    before, new = np.array([0, 1, 0]), np.array([ROOT, 1, 4, 5])
    assert node_depths(before, new).tolist() == [0, 2, 3, 4]


def test_a_parent_that_comes_later_is_refused() -> None:
    with pytest.raises(ValueError, match="a node's parent must come before it"):
        node_depths(np.zeros(0, dtype=np.int64), np.array([1, 0]))
