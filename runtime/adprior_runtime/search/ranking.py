"""The order of the open prefixes and of the advertisers of a search's tree.

Compiled functions; `adprior_runtime.search.certificate` and the beam call them. The certificate's
module defines K, L, U, m and Q.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from adprior_runtime.compiled import (
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    compiled,
    part_of_compiled,
)

_LOG_2 = math.log(2.0)
OPEN = 0
FOUND = 1
STEP_LOSS = 0.1
"""These as in `adprior_runtime.search.expansion`; a test compares them."""
_BRANCH_LOSS = 0.3
"""The most probable name below a prefix with c children is guessed to have its log-probability,
less `STEP_LOSS` + `_BRANCH_LOSS` log c. Half or twice as much of both changes the time of an exact
search of the shipped model by 1 % (K = 20) or at most 4 % (K = 5)."""


class Verdict(NamedTuple):
    """What the proof needs to know of the K advertisers of largest L, the leaders, and the others.

    Attributes:
        leaders: How many leaders have a found name, at most K.
        missing: How many of them also have names that are not found.
        threshold: Their smallest log L; inf if K is 0, -inf if there are fewer than K.
        closest: The largest log L of the others, -inf if there are none.
        highest: The largest log U of the others, those without a found name included.
    """

    leaders: int
    missing: int
    threshold: float
    closest: float
    highest: float


class _Table(NamedTuple):
    """The advertisers with a found name.

    Attributes:
        rows: int64 [advertisers].
        lower: float64 [advertisers], log L.
        unresolved: int64 [advertisers], m.
        leaders: int64 [at most K], positions of the leaders, the largest L first.
    """

    rows: Int64Array
    lower: Float64Array
    unresolved: Int64Array
    leaders: Int64Array


@part_of_compiled
def _largest(
    values: Float64Array, kinds: Int8Array, kind: int, begin: int, count: int, above: float
) -> Int64Array:
    """Return the positions of the largest values of a kind; see `largest_open`.

    They are inserted into a sorted list. A heap would be quicker for a thousand, but is half as
    quick for 32: a processor cannot predict its branches.
    """
    top, size = np.empty(count, np.int64), 0
    for position in range(begin, len(values)):
        value = values[position]
        if not value > above or kinds[position] != kind or count == 0:
            continue
        place = min(size, count - 1)
        size = place + 1
        while place > 0 and values[top[place - 1]] < value:
            top[place] = top[place - 1]
            place -= 1
        top[place] = position
        if size == count:
            above = values[top[count - 1]]
    return top[:size]


@part_of_compiled
def _log_sum(first: float, second: float) -> float:
    """Return the log of the sum of two probabilities, as `numpy.logaddexp` does."""
    if first == second:  # also -inf
        return first + _LOG_2
    return max(first, second) + math.log1p(math.exp(-abs(first - second)))


@part_of_compiled
def _table(
    leaf_advertiser: Int32Array,
    leaf_offsets: Int32Array,
    ignored: Int64Array,
    nodes: Int64Array,
    scores: Float64Array,
    kinds: Int8Array,
    wanted: int,
    most: int,
) -> _Table:
    """Return the advertisers with a found name; see `judge`."""
    found, size = np.empty(len(kinds), np.int64), 0
    for position, kind in enumerate(kinds):
        if kind == FOUND:
            found[size] = position
            size += 1
    owners, order = np.empty(size, np.int64), np.arange(size)
    for place in range(size):
        owners[place] = leaf_advertiser[nodes[found[place]]]
    if most > 1:  # names of one advertiser come together, those found first come first
        order = np.argsort(owners, kind="mergesort")
    rows, lower, names = np.empty_like(owners), np.empty(len(owners)), np.empty_like(owners)
    count = 0
    for place in order:
        score, owner = scores[found[place]], owners[place]
        spot = np.searchsorted(ignored, owner)
        if spot < len(ignored) and ignored[spot] == owner:
            continue
        if count and rows[count - 1] == owner:
            lower[count - 1] = _log_sum(lower[count - 1], score)
            names[count - 1] += 1
        else:
            rows[count], lower[count], names[count] = owner, score, 1
            count += 1
    rows, lower, unresolved = rows[:count], lower[:count], names[:count]
    for place, row in enumerate(rows):
        unresolved[place] = leaf_offsets[row + 1] - leaf_offsets[row] - names[place]
    leaders = _largest(lower, np.zeros(count, np.int8), 0, 0, wanted, -np.inf)
    return _Table(rows, lower, unresolved, leaders)


@part_of_compiled
def _largest_sums(scores: Float64Array, kinds: Int8Array, most: int) -> Float64Array:
    """Return logs of the sums of the 0, 1 ... ``most`` largest of Q."""
    sums = np.full(most + 1, -np.inf)
    top = _largest(scores, kinds, OPEN, 0, most, -np.inf)
    for place in range(most):
        sums[place + 1] = sums[place]
        if place < len(top):
            sums[place + 1] = _log_sum(sums[place], scores[top[place]])
    return sums


@compiled
def largest_open(
    scores: Float64Array, kinds: Int8Array, begin: int, count: int, above: float
) -> Int64Array:
    """Return the positions of the most probable open prefixes, most probable first.

    Of equal ones, the first are taken, and come first.

    Args:
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored].
        begin: The position of the first prefix that may be taken.
        count: Most positions to return.
        above: The log-probability that they exceed.
    """
    return _largest(scores, kinds, OPEN, begin, count, above)


@compiled
def judge(
    leaf_advertiser: Int32Array,
    leaf_offsets: Int32Array,
    ignored: Int64Array,
    nodes: Int64Array,
    scores: Float64Array,
    kinds: Int8Array,
    wanted: int,
    eligible: int,
    most: int,
) -> Verdict:
    """Return what the proof needs to know.

    Args:
        leaf_advertiser: The trie's.
        leaf_offsets: Likewise.
        ignored: Rows of advertisers that do not count, rising.
        nodes: int64 [scored], trie nodes of the prefixes with a score.
        scores: float64 [scored], their log-probabilities.
        kinds: int8 [scored].
        wanted: K.
        eligible: Number of advertisers that count.
        most: The most names of one advertiser.
    """
    table = _table(leaf_advertiser, leaf_offsets, ignored, nodes, scores, kinds, wanted, most)
    sums = _largest_sums(scores, kinds, most)
    threshold = np.inf if wanted == 0 else -np.inf
    if 0 < len(table.leaders) == wanted:
        threshold = table.lower[table.leaders[-1]]
    leads = np.zeros(len(table.rows), np.bool_)
    missing = 0
    for place in table.leaders:
        leads[place] = True
        missing += table.unresolved[place] > 0
    closest, highest = -np.inf, sums[-1] if len(table.rows) < eligible else -np.inf
    for place, lower in enumerate(table.lower):
        if not leads[place]:
            closest = max(closest, lower)
            highest = max(highest, _log_sum(lower, sums[table.unresolved[place]]))
    return Verdict(len(table.leaders), missing, threshold, closest, highest)


@compiled
def likely_open(
    leaf_advertiser: Int32Array,
    leaf_offsets: Int32Array,
    ignored: Int64Array,
    nodes: Int64Array,
    scores: Float64Array,
    kinds: Int8Array,
    offsets: Int32Array,
    wanted: int,
    most: int,
    count: int,
) -> tuple[Int64Array, float]:
    """Return the positions of open prefixes that are likely to hold a leader, before K are found.

    They reach the likely bar, which is returned too: the K-th largest log-probability of the
    advertisers found and of the names that are guessed below the ``count`` most probable open
    prefixes; -inf if those are fewer than K. At least one reaches it if any prefix is open.

    Args:
        leaf_advertiser: As in `judge`.
        leaf_offsets: Likewise.
        ignored: Likewise.
        nodes: Likewise.
        scores: Likewise.
        kinds: Likewise.
        offsets: The trie's.
        wanted: K.
        most: As in `judge`.
        count: Most positions to return.
    """
    table = _table(leaf_advertiser, leaf_offsets, ignored, nodes, scores, kinds, wanted, most)
    top = _largest(scores, kinds, OPEN, 0, count, -np.inf)
    found = len(table.lower)
    values = np.empty(found + len(top))
    for place, lower in enumerate(table.lower):
        values[place] = lower
    for place, position in enumerate(top):
        children = offsets[nodes[position] + 1] - offsets[nodes[position]]
        loss = STEP_LOSS + _BRANCH_LOSS * math.log(children)
        values[found + place] = scores[position] - loss
    best = _largest(values, np.zeros(len(values), np.int8), 0, 0, wanted, -np.inf)
    bar = values[best[-1]] if len(best) == wanted else -np.inf
    likely = 0
    while likely < len(top) and scores[top[likely]] >= bar:
        likely += 1
    return top[:likely], bar


@compiled
def blocking(
    scores: Float64Array, kinds: Int8Array, count: int, most: int, bar: float
) -> Int64Array:
    """Return the positions of the open prefixes that block the proof, most probable first.

    A prefix blocks it if it and the next less probable ones, ``most`` in all, reach the bar.

    Args:
        scores: As in `judge`.
        kinds: Likewise.
        count: Most positions to return.
        most: The most names of one advertiser.
        bar: The log-probability below which all other advertisers must be.
    """
    top = _largest(scores, kinds, OPEN, 0, count + most, -np.inf)
    if len(top) == 0:
        return top
    highest = scores[top[0]]
    sums = np.zeros(len(top) + most)  # of the most probable ones, relative to the largest
    for place, position in enumerate(top):
        sums[place] = math.exp(scores[position] - highest)
    sums = np.cumsum(sums)
    least = math.exp(min(bar - highest, 1.0 + math.log(most)))
    blocks = 0
    for place in range(len(top)):
        before = sums[place - 1] if place else 0.0
        blocks += sums[place + most - 1] - before >= least
    return top[: min(blocks, count)]


@compiled
def rivals(
    leaf_advertiser: Int32Array,
    leaf_offsets: Int32Array,
    ignored: Int64Array,
    nodes: Int64Array,
    scores: Float64Array,
    kinds: Int8Array,
    wanted: int,
    most: int,
    bar: float,
) -> Int64Array:
    """Return the rows of leaders and close rivals that have names that are not found.

    Args:
        leaf_advertiser: The trie's.
        leaf_offsets: Likewise.
        ignored: As in `judge`.
        nodes: Likewise.
        scores: Likewise.
        kinds: Likewise.
        wanted: Likewise.
        most: Likewise.
        bar: As in `blocking`.
    """
    table = _table(leaf_advertiser, leaf_offsets, ignored, nodes, scores, kinds, wanted, most)
    sums = _largest_sums(scores, kinds, most)
    near = np.zeros(len(table.rows), np.bool_)
    for place, lower in enumerate(table.lower):
        near[place] = _log_sum(lower, sums[table.unresolved[place]]) >= bar
    near[table.leaders] = True
    return table.rows[near & (table.unresolved > 0)]
