from __future__ import annotations

import math

import pytest

from adprior_explore.certificate import Certificate
from support.listed_forecasts import listed

MARGIN = 0.01
TWO = {1: 0.5, 2: 0.2}
THREE = TWO | {3: 0.1}


def test_the_one_more_than_is_shown_makes_the_gap() -> None:
    found = Certificate.of(listed(THREE, missing_mass=0.05), 2, MARGIN, asked=3)
    assert found.exact
    assert found.best_other is not None
    assert found.best_other.advertiser_id == 3
    assert found.best_other_bound == pytest.approx(0.1)
    assert found.gap_nats == pytest.approx(math.log(2))
    assert found.last_shown == pytest.approx(0.2)


def test_the_masses_are_all_of_the_probability() -> None:
    found = Certificate.of(listed(THREE, missing_mass=0.05), 2, MARGIN, asked=3)
    assert found.shown_mass == pytest.approx(0.7)
    assert found.missing_mass == pytest.approx(0.15)  # what is not shown is missing
    assert found.shown_mass + found.missing_mass + found.outside_mass == pytest.approx(1)


@pytest.mark.parametrize(("last", "is_proved"), [(0.2, False), (0.201, False), (0.203, True)])
def test_a_gap_within_the_rounding_proves_nothing(last: float, is_proved: bool) -> None:
    close = listed({1: 0.5, 2: last, 3: 0.2}, missing_mass=0.0)
    found = Certificate.of(close, 2, MARGIN, asked=3)
    assert found.exact is is_proved
    assert found.gap_nats == pytest.approx(math.log(last / 0.2))
    assert found.margin_nats == MARGIN


def test_without_tritons_certificate_only_the_missing_mass_bounds_the_others() -> None:
    unproved = listed(THREE, missing_mass=0.05, exact=False)
    found = Certificate.of(unproved, 2, MARGIN, asked=3)
    assert not found.exact
    assert found.gap_nats is None
    assert found.best_other_bound == pytest.approx(0.15)


@pytest.mark.parametrize(("missing_mass", "bound"), [(0.25, 0.2), (0.05, 0.05)])
def test_without_one_more_the_last_and_the_missing_mass_bound_the_others(
    missing_mass: float, bound: float
) -> None:
    found = Certificate.of(listed(TWO, missing_mass=missing_mass), 2, MARGIN, asked=2)
    assert found.exact
    assert (found.best_other, found.gap_nats) == (None, None)
    assert found.best_other_bound == pytest.approx(bound)


def test_a_small_catalogue_has_no_other_advertiser() -> None:
    found = Certificate.of(listed(TWO, missing_mass=0.0), 20, MARGIN, asked=21)
    assert found.exact
    assert (found.best_other, found.best_other_bound, found.gap_nats) == (None, None, None)


def test_a_forecast_without_advertisers() -> None:
    found = Certificate.of(listed({}, missing_mass=1.0, exact=False), 20, MARGIN, asked=21)
    assert found.to_json() | {"best_other_bound": 1.0} == found.to_json()
    assert found.last_shown is None
