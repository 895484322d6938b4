"""An expansion of a search's tree: which tokens a pass extends, and what its answer adds.

Compiled functions; `adprior_runtime.search.tree` calls them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from adprior_runtime.compiled import (
    Float32Array,
    Float64Array,
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
"""A child without siblings is guessed to have its parent's log-probability, less this."""


@part_of_compiled
def _kind(offsets: Int32Array, dead: Int64Array, node: int) -> int:
    if len(dead):
        place = np.searchsorted(dead, node)
        if place < len(dead) and dead[place] == node:
            return EXCLUDED
    # `leaf_advertiser` tells leaves too, but is in other memory pages.
    return FOUND if offsets[node] == offsets[node + 1] else OPEN


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
) -> tuple[Int64Array, Int64Array]:
    """Plan the pass that expands prefixes, and others below them that join the pass.

    Levels join as a whole as long as each is small. Below these, children without siblings join if
    they are guessed to reach the bar.

    Args:
        offsets: The trie's.
        child_tokens: Likewise.
        dead: Nodes whose names all belong to excluded advertisers, rising.
        nodes: int64 [scored], trie nodes of the prefixes that have a score.
        scores: float64 [scored], their log-probabilities.
        parents: int64 [scored], the engine's number of the node that each continues.
        chosen: int64 [chosen], positions of the prefixes to expand.
        first: The engine's number of the first of them.
        most: Most prefixes of a level that joins as a whole.
        bar: A log-probability.
        deepest: The tokens of the longest name.

    Returns:
        int64 [3, n], the prefixes to expand, level by level: their trie nodes, their last tokens,
        and the engine's number of the node that each continues. int64 [4, c], their children in the
        trie: their nodes, their last tokens, the position of each one's parent among the prefixes,
        rising, and their kinds. `EXPANDED` are those that are among the prefixes themselves.
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
    return prefixes, children


@part_of_compiled
def _raised(log_prob: float, floor: float) -> float:
    return max(floor, log_prob)


@part_of_compiled
def _is_wrong(log_prob: float) -> bool:
    return not log_prob < np.inf  # also NaN


@compiled
def begin_table(
    nodes: WrittenInt64,
    scores: WrittenFloat64,
    kinds: WrittenInt8,
    parents: WrittenInt64,
    offsets: Int32Array,
    dead: Int64Array,
    places: Int64Array,
    log_probs: Float32Array,
    floor: float,
) -> tuple[int, int, int]:
    """Write children of the root into the first rows of a table.

    Args:
        nodes: As in `take_in`; the next three likewise.
        scores: Likewise.
        kinds: Likewise.
        parents: Likewise.
        offsets: The trie's.
        dead: As in `plan`.
        places: int64 [n], where the children are among all of the root's.
        log_probs: float32 [n], theirs.
        floor: Lower log-probabilities are raised to this.

    Returns:
        How many log-probabilities are NaN or +inf, how many of the children are names, and how many
        are open and more probable than the least probable one.
    """
    least, wrong, names, certain = np.inf, 0, 0, 0
    for row, place in enumerate(places):
        wrong += _is_wrong(log_probs[row])
        nodes[row], parents[row] = place + 1, -1
        scores[row], kinds[row] = _raised(log_probs[row], floor), _kind(offsets, dead, place + 1)
        least = min(least, scores[row])
        names += kinds[row] == FOUND
    for row in range(len(places)):
        certain += scores[row] > least and kinds[row] == OPEN
    return wrong, names, certain


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
    log_probs: Float32Array,
    floor: float,
    first: int,
) -> tuple[int, int, int, int]:
    """Write the children that a pass has scored behind the prefixes that have scores.

    Args:
        nodes: int64 [room], trie nodes of all prefixes that have a score.
        scores: float64 [room], their log-probabilities.
        kinds: int8 [room].
        parents: int64 [room], the engine's number of the node that each continues, -1 for the root.
        count: How many there are.
        chosen: int64 [chosen], positions of the prefixes that were chosen for the pass.
        children: int64 [c], the children's nodes, from `plan`.
        rows: int64 [c], their parents' positions.
        new_kinds: int64 [c], their kinds.
        log_probs: float32 [c], each child's log-probability after its parent.
        floor: Lower log-probabilities are raised to this.
        first: The engine's number of the first new node.

    Returns:
        How many log-probabilities are NaN or +inf, how many names are found, how many new prefixes
        are open, and how many of the chosen ones continue the root.
    """
    above, firsts = np.empty(rows[-1] + 1), 0  # the scores of the pass's nodes
    for place, position in enumerate(chosen):
        firsts += parents[position] < 0
        above[place] = scores[position]
        kinds[position] = EXPANDED
    level, wrong, names, opened = len(chosen), 0, 0, 0
    for child, row in enumerate(rows):
        wrong += _is_wrong(log_probs[child])
        score = above[row] + _raised(log_probs[child], floor)
        if new_kinds[child] == EXPANDED:
            above[level] = score
            level += 1
        nodes[count + child], scores[count + child] = children[child], score
        kinds[count + child] = new_kinds[child]
        parents[count + child] = first + row
        names += new_kinds[child] == FOUND
        opened += new_kinds[child] == OPEN
    return wrong, names, opened, firsts


@compiled
def finite(log_probs: Float32Array, floor: float) -> tuple[Float64Array, int]:
    """Return log-probabilities in double precision, and how many are NaN or +inf.

    Args:
        log_probs: float32 [n].
        floor: Lower ones are raised to this.
    """
    raised, wrong = np.empty(len(log_probs)), 0
    for place, value in enumerate(log_probs):
        raised[place] = _raised(value, floor)
        wrong += _is_wrong(value)
    return raised, wrong
