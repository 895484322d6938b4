from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.tree_packing import PackedNodes, pack_nodes


def _pack(parents: list[int], above: list[int], rows: list[int]) -> PackedNodes:
    positions = [*range(100), *([100, 101][: len(parents)])]
    tree, places, new, asked = (
        np.array(each, np.int64) for each in (parents, positions, above, rows)
    )
    return pack_nodes(tree, places, new, asked, np.full(len(rows), 5), 6)


def test_a_new_node_sees_the_prompt_itself_and_its_ancestors() -> None:
    packed = _pack([ROOT, 0], [ROOT, 1, 3], [0, 2, 2])
    assert packed.parents.tolist() == [ROOT, 0, ROOT, 1, 3]
    assert packed.visible.tolist() == [100] * 3
    assert packed.seen.tolist() == [
        [102, 102, 102, 102],
        [103, 101, 100, 103],
        [104, 103, 101, 100],
    ]
    assert packed.positions.tolist() == [*range(100), 100, 101, 100, 102, 103]


def test_rows_without_pairs_are_not_wanted() -> None:
    packed = _pack([], [ROOT] * 4, [1, 1, 3])
    assert packed.wanted.tolist() == [1, 3]
    assert packed.pair_rows.tolist() == [0, 0, 1]


@pytest.mark.parametrize("above", [[1, ROOT], [ROOT, 1], [ROOT, 2]])
def test_a_parent_that_does_not_come_before_is_refused(above: list[int]) -> None:
    with pytest.raises(ValueError, match="a node's parent must come before it"):
        _pack([], above, [0])


def test_tokens_off_the_vocabulary_are_counted() -> None:
    nobody, prompt = np.zeros(0, np.int64), np.arange(3)
    tokens = np.array([-1, 0, 5, 6])
    packed = pack_nodes(nobody, prompt, np.array([ROOT]), np.zeros(4, np.int64), tokens, 6)
    assert packed.unknown == 2
