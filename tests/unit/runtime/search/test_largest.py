from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime.search.largest import positions_of_largest

VALUES = st.floats(-100, 0) | st.sampled_from([0.0, -1.0, -2.0]) | st.just(-1e5)


@settings(max_examples=300)
@given(st.lists(VALUES, max_size=80), st.integers(1, 90))
def test_the_largest_values_are_found(values: list[float], count: int) -> None:
    array = np.array(values, dtype=np.float64)
    places = positions_of_largest(array, count)
    assert len(set(places.tolist())) == len(places) == min(count, len(values))
    assert sorted(array[places]) == sorted(values)[-count:]


def test_sorted_values_work_too() -> None:
    rising = np.arange(1000.0)
    for values in (rising, rising[::-1], np.zeros(1000)):
        assert sorted(values[positions_of_largest(values, 7)]) == sorted(values)[-7:]
