from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.tree_packing import pack_nodes
from adprior_runtime.engines.tree_pass import PassShape, TreePass

TOKENS = np.array([7, 8, 9, 7], np.int64)


def _pack(parents: list[int], above: list[int], rows: list[int]) -> tuple[list[int], TreePass]:
    """Return the tree's parents and the pass."""
    before = [*range(100), *([100, 101][: len(parents)])]
    tree, places, new, asked = (np.array(each, np.int64) for each in (parents, before, above, rows))
    pairs = np.full(len(rows), 5)
    grown, positions, numbers, seen, wanted, _ = pack_nodes(
        tree, places, TOKENS[: len(new)], new, asked, pairs, 6
    )
    shape = PassShape(len(before), len(above), seen, wanted, len(rows))
    return grown.tolist(), TreePass(shape, positions, numbers)


def test_a_new_node_sees_the_prompt_itself_and_its_ancestors() -> None:
    parents, packed = _pack([ROOT, 0], [ROOT, 1, 3], [0, 2, 2])
    assert parents == [ROOT, 0, ROOT, 1, 3]
    assert packed.token_ids.tolist() == [7, 8, 9]
    assert packed.visible.tolist() == [100] * 3
    assert packed.seen.tolist() == [
        [102, 102, 102, 102],
        [103, 101, 100, 103],
        [104, 103, 101, 100],
    ]
    assert packed.positions.tolist() == [*range(100), 100, 101, 100, 102, 103]
    assert packed.new_positions.tolist() == [100, 102, 103]


def test_rows_without_pairs_are_not_wanted() -> None:
    _, packed = _pack([], [ROOT] * 4, [1, 1, 3])
    assert packed.wanted.tolist() == [1, 3]
    assert packed.pair_rows.tolist() == [0, 0, 1]
    assert packed.pair_tokens.tolist() == [5, 5, 5]


@pytest.mark.parametrize("above", [[1, ROOT], [ROOT, 1], [ROOT, 2]])
def test_a_parent_that_does_not_come_before_is_refused(above: list[int]) -> None:
    with pytest.raises(ValueError, match="a node's parent must come before it"):
        _pack([], above, [0])


def test_tokens_off_the_vocabulary_are_counted() -> None:
    nobody, prompt = np.zeros(0, np.int64), np.arange(3)
    tokens = np.array([-1, 0, 5, 6])
    rows = np.zeros(4, np.int64)
    *_, unknown = pack_nodes(nobody, prompt, TOKENS[:1], np.array([ROOT]), rows, tokens, 6)
    assert unknown == 2
