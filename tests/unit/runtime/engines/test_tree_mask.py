from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.tree_mask import additive_mask, lineages


def test_a_mask_shows_the_begin_of_the_sequence_and_what_else_is_seen() -> None:
    mask = additive_mask(np.array([1, 2]), np.array([[1, 1], [3, 4]]), 5)
    assert [np.flatnonzero(row == 0).tolist() for row in mask] == [[0, 1], [0, 1, 3, 4]]
    assert mask.dtype == np.float32
    assert np.isfinite(mask).all()


def test_a_new_node_sees_itself_and_its_ancestors() -> None:
    parents = np.array([ROOT, 0, ROOT, 1, 3])
    seen, ancestors = lineages(parents, 3)
    assert seen.tolist() == [[2, 2, 2, 2], [3, 1, 0, 3], [4, 3, 1, 0]]
    assert ancestors.tolist() == [0, 2, 3]
    seen, ancestors = lineages(parents, 0)
    assert seen.tolist() == ancestors.tolist() == []


@pytest.mark.parametrize("parents", [[1, ROOT], [ROOT, 1], [ROOT, 2]])
def test_a_parent_that_does_not_come_before_is_refused(parents: list[int]) -> None:
    with pytest.raises(ValueError, match="a node's parent must come before it"):
        lineages(np.array(parents), 2)
