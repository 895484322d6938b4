from __future__ import annotations

import math

import numpy as np
import pytest

from adprior_client.rollout.comparison import (
    MOST_LOOKS,
    Looks,
    compare_certificates,
    compare_drift,
    compare_errors,
    compare_tails,
    compare_times,
    have_times,
)
from adprior_client.rollout.metrics_page import (
    BINS,
    FIELDS,
    TIME_BOUNDS_S,
    TIMES,
    Counts,
    Field,
)
from support.fake_triton_with_metrics import POPULAR


def counts(**fields: float) -> Counts:
    found = np.zeros(FIELDS)
    for name, value in fields.items():
        found[Field[name.upper()]] = value
    return found


def _looks(stable: Counts, canary: Counts, number: int = 1) -> Looks:
    looks = Looks()
    for _ in range(number):
        looks.add(stable, canary)
    return looks


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10: 56 of 70 against 48 of 80.
    looks = _looks(counts(answered=32, failed=48), counts(answered=14, failed=56))
    found = compare_errors(looks, 0.95)
    assert (found.stable, found.canary) == pytest.approx((0.6, 0.8))
    assert (found.compared, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_refused_requests_are_no_failures() -> None:
    looks = _looks(
        counts(answered=10, failed=5, invalid=7), counts(answered=8, failed=4, invalid=2)
    )
    found = compare_errors(looks, 0.95)
    assert (found.stable, found.canary) == (0, 0.2)
    assert looks.requests() == (10, 10)


def test_without_requests_nothing_is_known() -> None:
    for compare in (
        compare_errors, compare_certificates, compare_times, compare_tails, compare_drift
    ):  # fmt: skip
        found = compare(_looks(counts(answered=9), counts(), 20), 0.95)
        assert math.isnan(found.compared)
        assert not found.high < 1
        assert not found.low > -1


def test_certificates_are_compared_by_forecasts() -> None:
    looks = _looks(counts(forecasts=100, exact=90), counts(forecasts=50, exact=20))
    found = compare_certificates(looks, 0.95)
    assert (found.stable, found.canary, found.compared) == pytest.approx((0.9, 0.4, -0.5))
    assert found.low < -0.5 < found.high < -0.3


def test_the_ratio_of_times_has_an_interval_from_looks() -> None:
    rng, looks = np.random.default_rng(1), Looks()
    for _ in range(40):
        stable, canary = rng.poisson(200), rng.poisson(10)
        looks.add(
            counts(answered=stable, duration_us=rng.gamma(2, 5e3, stable).sum()),
            counts(answered=canary, duration_us=rng.gamma(2, 6e3, canary).sum()),
        )
    looks.add(counts(answered=200, duration_us=2e6), counts())  # the canary had no request
    found = compare_times(looks, 0.95)
    assert (found.stable, found.canary) == pytest.approx((10, 12), rel=0.1)
    assert 1 < found.low < found.compared < found.high < 1.4
    wider = compare_times(looks, 0.999)
    assert wider.low < found.low < found.high < wider.high
    assert compare_times(looks, 0.95) == found  # the draws are always the same


def _searches(*times_s: float) -> Counts:
    found = np.zeros(FIELDS)
    found[TIMES] = [np.sum(np.array(times_s) <= bound) for bound in TIME_BOUNDS_S]
    return found


def test_the_95th_percentile_is_interpolated_in_its_bucket() -> None:
    # Of the slowest ten searches five are below it: it is in the middle of their bucket.
    stable, canary = [*[0.004] * 90, *[0.02] * 10], [*[0.004] * 90, *[0.06] * 10]
    found = compare_tails(_looks(_searches(*stable), _searches(*canary), 10), 0.95)
    assert (found.stable, found.canary) == pytest.approx((21, 65.5))
    assert (found.compared, found.low, found.high) == pytest.approx([65.5 / 21] * 3)


def test_a_percentile_beyond_all_buckets_is_the_last_bound() -> None:
    found = compare_tails(_looks(_searches(0.01), _searches(999.0), 10), 0.95)
    assert found.canary == 1e3 * TIME_BOUNDS_S[-2]


def test_the_ratio_of_percentiles_has_an_interval_from_looks() -> None:
    rng, looks = np.random.default_rng(1), Looks()
    for _ in range(40):
        looks.add(_searches(*rng.lognormal(-4, 0.5, 200)), _searches(*rng.lognormal(-3.6, 0.5, 20)))
    found = compare_tails(looks, 0.95)
    assert found.low < found.compared < found.high
    # The buckets add a few percent to each percentile.
    assert found.compared == pytest.approx(math.exp(0.4), rel=0.1)


def test_groups_without_times_of_searches_are_told() -> None:
    assert have_times(_looks(_searches(0.1), _searches(0.1)))
    assert not have_times(_looks(_searches(0.1), counts(answered=9, forecasts=9)))


@pytest.mark.parametrize("number", [128, 129, 300, 17_280])
def test_a_long_hold_keeps_a_bounded_number_of_looks(number: int) -> None:
    rng, looks = np.random.default_rng(1), Looks()
    times = rng.gamma(2, 5e3, (number, 2))
    for stable, canary in times:
        looks.add(
            counts(answered=10, duration_us=10 * stable), counts(answered=1, duration_us=canary)
        )
    assert MOST_LOOKS // 2 <= len(looks) <= MOST_LOOKS
    assert looks.requests() == (10 * number, number)
    found = compare_times(looks, 0.95)
    stable, canary = times.mean(axis=0) / 1e3
    assert (found.stable, found.canary) == pytest.approx((stable, canary))
    # The looks are independent, so the interval is as wide as if all of them were kept.
    expected = 2 * 1.96 * math.sqrt(1 / number)
    assert found.high - found.low == pytest.approx(expected, rel=0.3)
    # All rows but the last cover the same number of looks.
    answered = looks.canary[:, Field.ANSWERED]
    assert set(answered[:-1]) == {answered.max()}


def test_a_few_looks_give_no_interval() -> None:
    same = counts(answered=9, duration_us=9e3)
    found = compare_times(_looks(same, same, 7), 0.95)
    assert found.compared == 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_drift_is_the_index_between_both_groups() -> None:
    same, other = np.zeros(FIELDS), np.zeros(FIELDS)
    same[BINS], other[BINS] = np.array(POPULAR) * 100, np.array(POPULAR[::-1]) * 100
    same[Field.FORECASTS] = other[Field.FORECASTS] = 100
    assert compare_drift(_looks(same, same, 10), 0.95).compared == 0
    found = compare_drift(_looks(same, other, 10), 0.95)
    assert found.low > 5
    # A bin without forecasts counts as 0.001.
    tenths = [max(share, 0.001) for share in POPULAR]
    expected = sum((p - q) * math.log(p / q) for p, q in zip(tenths, reversed(tenths), strict=True))
    assert found.compared == pytest.approx(expected)
