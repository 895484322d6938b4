"""Which prefixes join a pass, for a trie written down by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.search.expansion import EXPANDED, plan

END = 0
# Below (1,) are three names of three branches; below (2,) is one name of four tokens.
TRIE = Trie.build([(1, 3, END), (1, 4, END), (1, 5, END), (2, 3, 4, 5, END)], np.arange(4))
BOTH = [(1,), (2,)]


def planned(bar: float, most: int = 0) -> list[tuple[int, ...]]:
    """Return the token paths of the prefixes that a pass expands, if both first ones are chosen."""
    prefixes, children = plan(
        TRIE.offsets,
        TRIE.child_tokens,
        np.zeros(0, dtype=np.int64),
        TRIE.first_nodes,
        np.array([-1.0, -2.0]),
        np.full(2, -1),
        np.arange(2),
        0,
        most,
        bar,
        TRIE.depth,
    )
    nodes, tokens, parents = prefixes
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    lengths = np.array([len(path) for path in paths])
    padded = np.array([[*path, *[-1] * 9][:9] for path in paths], dtype=np.int32)
    assert TRIE.find(padded, lengths).tolist() == nodes.tolist()
    expanded = [row for row in children.T.tolist() if row[3] == EXPANDED]
    assert [row[0] for row in expanded] == nodes[2:].tolist()
    return paths


@pytest.mark.parametrize(
    ("bar", "joining"),
    [
        (math.inf, []),
        (-2.0, []),
        (-2.1, [(2, 3)]),
        (-2.2, [(2, 3), (2, 3, 4)]),
        (-9.0, [(2, 3), (2, 3, 4), (2, 3, 4, 5)]),
        (-math.inf, [(2, 3), (2, 3, 4), (2, 3, 4, 5)]),
    ],
)
def test_children_without_siblings_join_while_they_are_likely_to_reach_the_bar(
    bar: float, joining: list[tuple[int, ...]]
) -> None:
    assert planned(bar - 1e-9) == BOTH + joining


@pytest.mark.parametrize(("most", "count"), [(3, 2), (4, 8)])
def test_small_levels_join_as_a_whole(most: int, count: int) -> None:
    """The second level has four prefixes, the third and the fourth have one each."""
    assert len(planned(math.inf, most)) == count


def test_levels_below_a_large_one_do_not_join_as_a_whole() -> None:
    assert planned(-2.1 - 1e-9, most=3) == [*BOTH, (2, 3)]
