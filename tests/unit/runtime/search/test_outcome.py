from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.search.expansion import EXCLUDED, EXPANDED, FOUND, OPEN
from adprior_runtime.search.outcome import log_mass, names_found

SCORES = st.floats(-100, 0) | st.sampled_from([0.0, -1.0, -2.0]) | st.just(-1e5)
KINDS = st.sampled_from([OPEN, FOUND, EXCLUDED, EXPANDED])


@given(st.lists(st.tuples(SCORES, KINDS), max_size=80))
def test_names_found_are_sorted(prefixes: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in prefixes])
    kinds = np.array([kind for _, kind in prefixes], dtype=np.int8)
    found = [place for place, (_, kind) in enumerate(prefixes) if kind == FOUND]
    expected = sorted(found, key=lambda place: -scores[place])
    assert names_found(scores, kinds, len(found)).tolist() == expected


@given(
    st.lists(st.tuples(SCORES, KINDS), max_size=80),
    st.floats(-1000, 0) | st.just(-np.inf),
)
def test_the_mass_outside_is_that_of_open_and_excluded_prefixes_and_others(
    prefixes: list[tuple[float, int]], others: float
) -> None:
    scores = np.array([score for score, _ in prefixes])
    kinds = np.array([kind for _, kind in prefixes], dtype=np.int8)
    outside = [score for score, kind in prefixes if kind in {OPEN, EXCLUDED}]
    expected = np.logaddexp.reduce([*outside, others])
    assert log_mass(scores, kinds, others) == pytest.approx(expected, rel=1e-13, abs=1e-13)
