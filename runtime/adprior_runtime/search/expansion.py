"""An expansion of a search's tree: which tokens a pass extends, and what its answer adds.

Compiled functions; `adprior_runtime.search.tree` calls them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from adprior_runtime.compiled import (
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    WrittenFloat64,
    WrittenInt8,
    WrittenInt64,
    compiled,
    part_of_compiled,
)

OPEN: Final = 0
"""A prefix that has a score and is not expanded."""
FOUND: Final = 1
"""A whole name."""
EXCLUDED: Final = 2
"""A prefix or a name below which all names belong to excluded advertisers."""
EXPANDED: Final = 3
"""A prefix whose token has gone through the model, so that its children have scores."""

STEP_LOSS: Final = 0.1
"""A child without brothers is guessed to have its parent's log-probability, less this."""


class Expansion(NamedTuple):
    """A pass that is to be run. Each array that a compiled function returns costs a microsecond.

    Attributes:
        prefixes: int64 [3, n], the prefixes to expand, level by level: their trie nodes, their last
            tokens, and the engine's number of the node that each continues.
        children: int64 [4, c], their children in the trie: their nodes, their last tokens, the
            position of each one's parent among the prefixes, rising, and their kinds. `EXPANDED`
            are those that are among the prefixes themselves.
    """

    prefixes: Int64Array
    children: Int64Array


@part_of_compiled
def _kind(offsets: Int32Array, dead: Int64Array, node: int) -> int:
    if len(dead):
        place = np.searchsorted(dead, node)
        if place < len(dead) and dead[place] == node:
            return EXCLUDED
    # `leaf_advertiser` tells leaves too, but is in other memory pages.
    return FOUND if offsets[node] == offsets[node + 1] else OPEN


@compiled
def kinds_of(offsets: Int32Array, dead: Int64Array, nodes: Int64Array) -> Int8Array:
    """Return what trie nodes are that are not expanded: `OPEN`, `FOUND` or `EXCLUDED`.

    Args:
        offsets: The trie's.
        dead: Nodes whose names all belong to excluded advertisers, rising.
        nodes: int64 [n].
    """
    kinds = np.empty(len(nodes), np.int8)
    for place, node in enumerate(nodes):
        kinds[place] = _kind(offsets, dead, node)
    return kinds


@part_of_compiled
def _with_descendants(
    offsets: Int32Array,
    dead: Int64Array,
    chosen: Int64Array,
    scores: Float64Array,
    most: int,
    bar: float,
    deepest: int,
) -> Int64Array:
    """Return prefixes, level by level: the chosen ones and those below that join; see `plan`."""
    room = (len(chosen) + most) * deepest
    nodes, guesses = np.empty(room, np.int64), np.empty(room)
    for place, node in enumerate(chosen):
        nodes[place], guesses[place] = node, scores[place]
    begin, stop, whole = 0, len(chosen), True
    while begin < stop:
        end = stop
        for place in range(begin, stop):
            first, last = offsets[nodes[place]] + 1, offsets[nodes[place] + 1]
            guess = guesses[place] - STEP_LOSS
            if whole or (first == last and guess >= bar):
                for child in range(first, last + 1):
                    if _kind(offsets, dead, child) == OPEN:
                        if not whole or end < stop + most:
                            nodes[end], guesses[end] = child, guess
                        end += 1
            if whole and end > stop + most:
                break
        if whole and end > stop + most:
            whole = False  # this level again, without its branches
        else:
            begin, stop = stop, end
    return nodes[:stop]


@compiled
def plan(
    offsets: Int32Array,
    child_tokens: Int32Array,
    dead: Int64Array,
    nodes: Int64Array,
    scores: Float64Array,
    parents: Int64Array,
    chosen: Int64Array,
    first: int,
    most: int,
    bar: float,
    deepest: int,
) -> Expansion:
    """Return the pass that expands prefixes, and others below them that join the pass.

    Levels join as a whole as long as each is small. Below these, children without brothers join if
    they are guessed to reach the bar.

    Args:
        offsets: The trie's.
        child_tokens: Likewise.
        dead: As in `kinds_of`.
        nodes: int64 [scored], trie nodes of the prefixes that have a score.
        scores: float64 [scored], their log-probabilities.
        parents: int64 [scored], the engine's number of the node that each continues.
        chosen: int64 [chosen], positions of the prefixes to expand.
        first: The engine's number of the first of them.
        most: Most prefixes of a level that joins as a whole.
        bar: A log-probability.
        deepest: The tokens of the longest name.
    """
    expanded = _with_descendants(offsets, dead, nodes[chosen], scores[chosen], most, bar, deepest)
    prefixes = np.empty((3, len(expanded)), np.int64)
    count = 0
    for place, node in enumerate(expanded):
        prefixes[0, place], prefixes[1, place] = node, child_tokens[node - 1]
        count += offsets[node + 1] - offsets[node]
    for place, position in enumerate(chosen):
        prefixes[2, place] = parents[position]
    children = np.empty((4, count), np.int64)
    place, level = 0, len(chosen)
    for row, node in enumerate(expanded):
        for child in range(offsets[node] + 1, offsets[node + 1] + 1):
            kind = _kind(offsets, dead, child)
            if level < len(expanded) and expanded[level] == child:
                kind = EXPANDED
                prefixes[2, level] = first + row
                level += 1
            children[0, place], children[1, place] = child, child_tokens[child - 1]
            children[2, place], children[3, place] = row, kind
            place += 1
    return Expansion(prefixes, children)


@compiled
def take_in(
    nodes: WrittenInt64,
    scores: WrittenFloat64,
    kinds: WrittenInt8,
    parents: WrittenInt64,
    count: int,
    chosen: Int64Array,
    children: Int64Array,
    rows: Int64Array,
    new_kinds: Int64Array,
    log_probs: Float64Array,
    first: int,
) -> int:
    """Write the children that a pass has scored behind the prefixes that have scores.

    Returns the number of names found.

    Args:
        nodes: int64 [room], trie nodes of all prefixes that have a score.
        scores: float64 [room].
        kinds: int8 [room].
        parents: int64 [room], the engine's number of the node that each continues.
        count: How many there are.
        chosen: int64 [chosen], positions of the prefixes that were chosen for the pass.
        children: int64 [c], the children's nodes, from `plan`.
        rows: int64 [c], their parents' positions.
        new_kinds: int64 [c], their kinds.
        log_probs: float64 [c], each child's log-probability after its parent.
        first: The engine's number of the first new node.
    """
    above = np.empty(rows[-1] + 1)  # the scores of the pass's nodes
    for place, position in enumerate(chosen):
        above[place] = scores[position]
        kinds[position] = EXPANDED
    level, names = len(chosen), 0
    for child, row in enumerate(rows):
        score = above[row] + log_probs[child]
        if new_kinds[child] == EXPANDED:
            above[level] = score
            level += 1
        nodes[count + child], scores[count + child] = children[child], score
        kinds[count + child] = new_kinds[child]
        parents[count + child] = first + row
        names += new_kinds[child] == FOUND
    return names


@compiled
def finite(log_probs: Float32Array, floor: float) -> tuple[Float64Array, int]:
    """Return log-probabilities in double precision, and how many are NaN or +inf.

    Args:
        log_probs: float32 [n].
        floor: Lower ones are raised to this.
    """
    raised, wrong = np.empty(len(log_probs)), 0
    for place, value in enumerate(log_probs):
        raised[place] = max(floor, value)
        wrong += not value < np.inf  # also counts NaN
    return raised, wrong
