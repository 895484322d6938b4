"""A compiled function that adds nodes to a user's tree, as positions after the prompt."""

from __future__ import annotations

import numpy as np

from adprior_runtime.compiled import Int64Array, WrittenInt64, compiled


@compiled
def pack_nodes(
    tree: WrittenInt64,
    places: WrittenInt64,
    parents: Int64Array,
    positions: Int64Array,
    tokens: Int64Array,
    above: Int64Array,
    rows: Int64Array,
    next_tokens: Int64Array,
    vocabulary: int,
) -> tuple[Int64Array, int, int, int]:
    """Add nodes to a tree, and tell which positions each sees.

    Args:
        tree: int64 [nodes + new], gets ``parents`` of the tree with its new nodes.
        places: int64 [prompt + nodes + new], gets their ``positions``.
        parents: int64 [nodes], the node that each node of the tree continues, -1 for the root.
        positions: int64 [prompt + nodes], the position of each token of prompt and tree.
        tokens: int64 [new], the new nodes' tokens.
        above: int64 [new], the node that each new one continues, -1 for the root.
        rows: int64 [pairs], one or more indices of new nodes.
        next_tokens: int64 [pairs].
        vocabulary: Number of tokens that the model knows.

    Returns:
        The numbers of the pass, see `adprior_runtime.engines.tree_pass.TreePass`; the columns of
        its ``seen``, in which each node stands first, then its ancestors, padded with the node; its
        wanted rows; and how many of the next tokens are not in the vocabulary.

    Raises:
        ValueError: A new node comes before its parent.
    """
    old, new, pairs = len(parents), len(above), len(rows)
    prompt = len(positions) - old
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
    number = np.zeros(new, np.int64)  # of each wanted node among the wanted ones, from 1
    for row in rows:
        number[row] = 1
    wanted = 0
    for marked in number:
        wanted += marked
    columns = deepest + 1
    numbers = np.empty(new * (3 + columns) + wanted + 2 * pairs, np.int64)
    for row in range(new):
        numbers[row], numbers[new + row] = tokens[row], places[prompt + old + row]
        numbers[2 * new + row] = prompt
        node = old + row
        for column in range(columns):
            place = 3 * new + row * columns + column
            numbers[place] = prompt + (node if node >= 0 else old + row)
            node = tree[node] if node >= 0 else -1
    begin, count = new * (3 + columns), 0
    for row in range(new):
        if number[row]:
            numbers[begin + count] = row
            count += 1
            number[row] = count
    begin, unknown = begin + wanted, 0
    for pair, row in enumerate(rows):
        numbers[begin + pair], numbers[begin + pairs + pair] = number[row] - 1, next_tokens[pair]
        unknown += not 0 <= next_tokens[pair] < vocabulary
    return numbers, columns, wanted, unknown
