from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.tree_packing import pack_nodes
from adprior_runtime.engines.tree_pass import PassShape, TreePass

TOKENS = [7, 8, 9, 7]


def _pack(
    parents: list[int], above: list[int], rows: list[int], wanted: Sequence[int] = ()
) -> tuple[list[int], TreePass, int]:
    """Return the tree's parents, the pass, and how many tokens are unknown."""
    before = [*range(100), *([100, 101][: len(parents)])]
    pairs = wanted or [5] * len(rows)
    old, places, tokens, new, asked, wanted_tokens = (
        np.array(each, np.int64)
        for each in (parents, before, TOKENS[: len(above)], above, rows, pairs)
    )
    tree = np.zeros(len(parents) + len(above), np.int64)
    positions = np.zeros(len(before) + len(above), np.int64)
    numbers, seen, rows_wanted, unknown = pack_nodes(
        tree, positions, old, places, tokens, new, asked, wanted_tokens, 6
    )
    shape = PassShape(len(before), len(above), seen, rows_wanted, len(rows))
    return tree.tolist(), TreePass(shape, positions, numbers), unknown


def test_a_new_node_sees_the_prompt_itself_and_its_ancestors() -> None:
    parents, packed, _ = _pack([ROOT, 0], [ROOT, 1, 3], [0, 2, 2])
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
    _, packed, _ = _pack([], [ROOT] * 4, [1, 1, 3])
    assert packed.wanted.tolist() == [1, 3]
    assert packed.pair_rows.tolist() == [0, 0, 1]
    assert packed.pair_tokens.tolist() == [5, 5, 5]


@pytest.mark.parametrize("above", [[1, ROOT], [ROOT, 1], [ROOT, 2]])
def test_a_parent_that_does_not_come_before_is_refused(above: list[int]) -> None:
    with pytest.raises(ValueError, match="a node's parent must come before it"):
        _pack([], above, [0])


def test_tokens_off_the_vocabulary_are_counted() -> None:
    *_, unknown = _pack([], [ROOT], [0] * 4, [-1, 0, 5, 6])
    assert unknown == 2
