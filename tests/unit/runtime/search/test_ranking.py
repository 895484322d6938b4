from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.search.expansion import EXPANDED, FOUND, OPEN
from adprior_runtime.search.ranking import largest_open, likely_open

SCORES = st.floats(-100, 0) | st.sampled_from([0.0, -1.0, -2.0]) | st.just(-1e5)
KINDS = st.sampled_from([OPEN, OPEN, FOUND, EXPANDED])
ABOVE = st.floats(-100, 0) | st.just(-np.inf)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(SCORES, KINDS), max_size=80), st.integers(0, 9), st.integers(1, 90), ABOVE
)
def test_the_most_probable_open_prefixes_are_found(
    prefixes: list[tuple[float, int]], begin: int, count: int, above: float
) -> None:
    scores = np.array([score for score, _ in prefixes])
    kinds = np.array([kind for _, kind in prefixes], dtype=np.int8)
    places = range(min(begin, len(prefixes)), len(prefixes))
    open_ones = [place for place in places if kinds[place] == OPEN and scores[place] > above]
    expected = sorted(open_ones, key=lambda place: -scores[place])[:count]
    assert largest_open(scores, kinds, places.start, count, above).tolist() == expected


def test_sorted_values_work_too() -> None:
    rising, kinds = np.arange(1000.0), np.full(1000, OPEN, dtype=np.int8)
    assert largest_open(rising, kinds, 0, 3, -np.inf).tolist() == [999, 998, 997]
    falling = np.ascontiguousarray(rising[::-1])
    assert largest_open(falling, kinds, 0, 3, -np.inf).tolist() == [0, 1, 2]
    assert largest_open(np.zeros(1000), kinds, 0, 3, -np.inf).tolist() == [0, 1, 2]


# Advertisers 0 and 1 have one token each, advertiser 2 + n is the n-th of 20 below one prefix.
MANY = Trie.build([(1, 0), (2, 0), *[(3, last, 0) for last in range(4, 24)]], np.arange(22))


@settings(max_examples=100)
@given(st.lists(st.floats(-9, 0), min_size=3, max_size=3), st.integers(1, 5), st.integers(1, 4))
def test_prefixes_are_likely_that_may_reach_the_kth_best_guess(
    scores: list[float], wanted: int, count: int
) -> None:
    chosen, bar = likely_open(
        MANY.leaf_advertiser,
        MANY.leaf_offsets,
        np.zeros(0, dtype=np.int64),
        MANY.first_nodes,
        np.array(scores),
        np.zeros(3, dtype=np.int8),
        MANY.offsets,
        wanted,
        1,
        count,
    )
    top = sorted(range(3), key=lambda place: -scores[place])[:count]
    losses = [0.1, 0.1, 0.1 + 0.3 * math.log(20)]
    guesses = sorted((scores[place] - losses[place] for place in top), reverse=True)
    expected = guesses[wanted - 1] if len(guesses) >= wanted else -math.inf
    assert math.isclose(bar, expected)
    assert chosen.tolist() == [place for place in top if scores[place] >= bar]
    assert len(chosen) > 0


def test_an_advertiser_that_counts_is_found_already() -> None:
    """The found one is the second best. An ignored one is better, but does not count."""
    arguments = MANY.leaf_advertiser, MANY.leaf_offsets
    nodes = np.array([1, 2, 3, *MANY.leaf_nodes[:2]])
    scores = np.array([-1.0, -3.0, -6.0, -2.0, -1.0])
    kinds = np.array([OPEN, OPEN, OPEN, FOUND, FOUND], dtype=np.int8)
    ignored = np.array([1])
    chosen, bar = likely_open(*arguments, ignored, nodes, scores, kinds, MANY.offsets, 2, 1, 9)
    assert (chosen.tolist(), bar) == ([0], -2.0)
