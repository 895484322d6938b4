from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adprior_runtime.forecast.drift import (
    POPULARITY_BINS,
    PopularityBins,
    PopularityDrift,
    stability_index,
)

_POSITIVE = st.floats(1e-6, 1.0)


def test_the_index_equals_the_textbook_formula() -> None:
    # (0.6 - 0.5) ln 1.2 + (0.4 - 0.5) ln 0.8
    found = stability_index(np.array([6.0, 4.0]), np.array([1.0, 1.0]))
    assert found == pytest.approx(0.1 * np.log(1.2) - 0.1 * np.log(0.8), rel=1e-12)


@given(arrays(np.float64, 6, elements=_POSITIVE), arrays(np.float64, 6, elements=_POSITIVE))
def test_the_index_is_symmetric_and_never_below_0(
    one: np.ndarray[tuple[int], np.dtype[np.float64]],
    other: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    found = stability_index(one, other)
    assert found >= -1e-12
    assert found == pytest.approx(stability_index(other, one), rel=1e-9, abs=1e-12)
    assert stability_index(one, 3 * one) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_bins_are_tenths_of_the_popularity(counts: list[int]) -> None:
    shares = (np.array(counts) + 1) / (sum(counts) + len(counts))
    bins = PopularityBins(np.log(shares).astype(np.float32))
    assert bins.shares.shape == (POPULARITY_BINS,)
    assert bins.shares.sum() == pytest.approx(1)
    # No bin is fuller than a tenth but for the advertiser that overfills it.
    assert bins.shares.max() <= 0.1 + shares.max() + 1e-6
    order = np.argsort(-shares, kind="stable")
    assert (np.diff(bins.of_row[order]) >= 0).all()


@pytest.fixture
def bins() -> PopularityBins:
    """A thousand advertisers, whose popularity differs as in a shop."""
    shares = 1 / np.arange(1, 1001)
    return PopularityBins(np.log(shares / shares.sum()).astype(np.float32))


def test_forecasts_of_the_popularity_show_no_drift(bins: PopularityBins) -> None:
    drift = PopularityDrift(bins.shares)
    assert drift.index() == pytest.approx(0, abs=1e-12)
    random = np.random.default_rng(1)
    shares = 1 / np.arange(1, 1001)
    for _ in range(3000):
        rows = random.choice(1000, size=20, p=shares / shares.sum())
        drift.add(bins.split(rows, np.full(20, -3, np.float32)))
    assert drift.index() < 0.01


def test_the_index_follows_recent_forecasts_and_forgets_old_ones(bins: PopularityBins) -> None:
    drift = PopularityDrift(bins.shares, window=100)
    most, least = np.arange(20), np.arange(980, 1000)
    log_probs = np.full(20, -3, np.float32)
    for _ in range(1000):
        drift.add(bins.split(least, log_probs))
    moved = drift.index()
    assert moved > 1
    for _ in range(1000):
        drift.add(bins.split(most, log_probs))
    after = drift.index()
    fresh = PopularityDrift(bins.shares, window=100)
    for _ in range(1000):
        fresh.add(bins.split(most, log_probs))
    assert after == pytest.approx(fresh.index(), rel=1e-2)


def test_empty_forecasts_and_a_single_advertiser_are_valid() -> None:
    bins = PopularityBins(np.zeros(1, np.float32))
    drift = PopularityDrift(bins.shares)
    for rows in (np.zeros(0, np.int64), np.zeros(1, np.int64)):
        drift.add(bins.split(rows, np.full(len(rows), -1, np.float32)))
        assert drift.index() == 0
    impossible = bins.split(np.zeros(1, np.int64), np.array([-np.inf], np.float32))
    assert impossible.tolist() == [0] * POPULARITY_BINS


def test_every_forecast_counts_the_same(bins: PopularityBins) -> None:
    rows = np.array([0, 0, 999])
    for log_probs in ([-0.1, -9, -3], [-8, -9, -9.5]):
        assert bins.split(rows, np.array(log_probs, np.float32)).sum() == pytest.approx(1)
    even = bins.split(np.array([0, 999]), np.full(2, -20, np.float32))
    assert (even[0], even[-1]) == pytest.approx((0.5, 0.5))
    tiny = bins.split(np.array([0, 999]), np.full(2, -918.67, np.float32))
    assert (tiny[0], tiny[-1]) == pytest.approx((0.5, 0.5))
