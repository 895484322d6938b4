"""A compiled function that adds nodes to a user's tree, as positions after the prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adprior_runtime.compiled import Int64Array, compiled


class PackedNodes(NamedTuple):
    """A tree with its new nodes, and what `adprior_runtime.engines.tree_pass.TreePass` holds.

    Attributes:
        parents: int64 [nodes], the node that each node continues, -1 for the root.
        positions: int64 [prompt + nodes].
        visible: int64 [new].
        seen: int64 [new, deepest], each node itself first, then its ancestors, padded with itself.
        wanted: int64 [wanted].
        pair_rows: int64 [pairs].
        unknown: How many of the next tokens are not in the vocabulary.
    """

    parents: Int64Array
    positions: Int64Array
    visible: Int64Array
    seen: Int64Array
    wanted: Int64Array
    pair_rows: Int64Array
    unknown: int


@compiled
def pack_nodes(
    parents: Int64Array,
    positions: Int64Array,
    above: Int64Array,
    rows: Int64Array,
    next_tokens: Int64Array,
    vocabulary: int,
) -> PackedNodes:
    """Add nodes to a tree, and tell which positions each sees.

    Args:
        parents: int64 [nodes], of the tree so far.
        positions: int64 [prompt + nodes], likewise.
        above: int64 [new], the node that each new one continues, -1 for the root.
        rows: int64 [pairs], one or more indices of new nodes.
        next_tokens: int64 [pairs].
        vocabulary: Number of tokens that the model knows.

    Raises:
        ValueError: A new node comes before its parent.
    """
    old, new = len(parents), len(above)
    prompt = len(positions) - old
    tree, places = np.empty(old + new, np.int64), np.empty(prompt + old + new, np.int64)
    for node in range(old + new):
        tree[node] = parents[node] if node < old else above[node - old]
    for place, position in enumerate(positions):
        places[place] = position
    deepest = 0
    for node in range(old, old + new):
        if tree[node] >= node:
            raise ValueError("extend: a node's parent must come before it")
        depth = places[prompt + tree[node]] + 1 - prompt if tree[node] >= 0 else 0
        places[prompt + node] = prompt + depth
        deepest = max(deepest, depth)
    seen = np.empty((new, deepest + 1), np.int64)
    visible = np.empty(new, np.int64)
    for row in range(new):
        visible[row] = prompt
        node = old + row
        for column in range(deepest + 1):
            seen[row, column] = prompt + (node if node >= 0 else old + row)
            node = tree[node] if node >= 0 else -1
    number = np.zeros(new, np.int64)  # of each wanted node among the wanted ones, from 1
    for row in rows:
        number[row] = 1
    wanted, count = np.empty(new, np.int64), 0
    for row in range(new):
        if number[row]:
            wanted[count] = row
            count += 1
            number[row] = count
    pair_rows, unknown = np.empty_like(rows), 0
    for pair, row in enumerate(rows):
        pair_rows[pair] = number[row] - 1
        unknown += not 0 <= next_tokens[pair] < vocabulary
    return PackedNodes(tree, places, visible, seen, wanted[:count], pair_rows, unknown)
