from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.search.expansion import EXPANDED, FOUND, OPEN
from adprior_runtime.search.ranking import largest_open

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
