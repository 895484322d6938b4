from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client import Forecast
from adprior_explore.distance import bound_of_others, changes, distance
from support.listed_forecasts import listed

ADVERTISERS = 8


def _listed_top(
    shares: list[float], count: int, *, exact: bool
) -> tuple[npt.NDArray[np.float64], Forecast]:
    """Return a distribution over advertisers and one outcome outside, and a forecast of it."""
    whole = np.array(shares) / np.sum(shares)
    inside = whole[:ADVERTISERS]
    top = np.argsort(-inside, kind="stable")[:count]
    missing = float(inside.sum() - inside[top].sum())
    found = {int(place): float(inside[place]) for place in top}
    return whole, listed(found, missing_mass=max(missing, 0.0), exact=exact)


SHARES = st.lists(st.floats(0.01, 1.0), min_size=ADVERTISERS + 1, max_size=ADVERTISERS + 1)
COUNTS = st.integers(0, ADVERTISERS)


@given(SHARES, SHARES, COUNTS, COUNTS, st.booleans())
def test_it_never_exceeds_the_true_distance(
    first: list[float], second: list[float], count: int, other_count: int, exact: bool
) -> None:
    p, before = _listed_top(first, count, exact=exact)
    q, after = _listed_top(second, other_count, exact=exact)
    true = np.abs(p - q).sum() / 2
    assert distance(before, after) <= true + 1e-9
    assert distance(before, after) == pytest.approx(distance(after, before), abs=1e-12)


def test_whole_lists_give_the_true_distance() -> None:
    before = listed({1: 0.5, 2: 0.2, 3: 0.1}, missing_mass=0.0)
    after = listed({1: 0.2, 2: 0.5, 3: 0.1}, missing_mass=0.0)
    assert distance(before, after) == pytest.approx(0.3)
    assert distance(before, before) == 0


def test_an_advertiser_in_one_list_is_compared_with_the_others_bound() -> None:
    before = listed({1: 0.5, 2: 0.3}, missing_mass=0.15)
    after = listed({1: 0.5, 3: 0.2}, missing_mass=0.25)
    found = {change.advertiser_id: change for change in changes(before, after)}
    assert found[2].after == pytest.approx(0.2)  # at most the last of the other list
    assert found[2].is_bound
    assert found[2].size == pytest.approx(-0.1)
    assert found[3].before == pytest.approx(0.15)  # at most the missing mass
    assert found[3].size == pytest.approx(0.05)
    assert found[1].size == 0
    assert distance(before, after) == pytest.approx(0.1)


def test_without_a_certificate_only_the_missing_mass_bounds_the_others() -> None:
    assert bound_of_others(listed({1: 0.1}, missing_mass=0.4, exact=False)) == 0.4
    assert bound_of_others(listed({1: 0.1}, missing_mass=0.4)) == pytest.approx(0.1)
    assert bound_of_others(listed({}, missing_mass=0.4)) == 0.4
