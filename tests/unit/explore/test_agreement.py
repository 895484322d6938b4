from __future__ import annotations

import pytest

from adprior_explore.agreement import drift
from adprior_explore.comparison import overlap
from support.listed_forecasts import listed

FIRST = listed({1: 0.4, 2: 0.2, 3: 0.1})
SECOND = listed({2: 0.4, 3: 0.2, 4: 0.1})
NONE = listed({}, missing_mass=1.0)


def test_the_overlap_counts_what_both_show() -> None:
    assert overlap(FIRST, SECOND, 1) == 0
    assert overlap(FIRST, SECOND, 2) == 0.5
    assert overlap(FIRST, SECOND, 3) == pytest.approx(2 / 3)
    assert overlap(FIRST, SECOND, 20) == pytest.approx(2 / 3)
    assert overlap(NONE, NONE, 5) == 1
    assert overlap(FIRST, NONE, 5) == 0


def test_equal_forecasts_have_no_drift() -> None:
    assert drift([FIRST, SECOND], [SECOND, FIRST]) == pytest.approx(0)


def test_drift_grows_with_the_difference() -> None:
    near = drift([FIRST] * 5, [listed({1: 0.35, 2: 0.25, 3: 0.1})] * 5)
    far = drift([FIRST] * 5, [listed({3: 0.4, 4: 0.2})] * 5)
    assert near is not None
    assert far is not None
    assert 0 <= near < far


def test_an_advertiser_that_only_the_other_side_shows_is_no_division_by_zero() -> None:
    found = drift([listed({1: 0.9})], [listed({2: 0.9})])
    assert found is not None
    assert found > 1


def test_without_forecasts_there_is_no_drift_to_measure() -> None:
    assert drift([NONE], [FIRST]) is None
