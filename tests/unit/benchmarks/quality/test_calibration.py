from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_bench.quality.calibration import BINS, Calibration, calibrate, observed_shares
from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import UserBootstrap, estimate
from adprior_bench.quality.metrics import score
from support.quality_cases import case


def _calibrate(
    cases: list[EncodedCase],
    forecasts: npt.NDArray[Any],
    cohort: str = "all",
) -> Calibration:
    targets = Targets.of(cases)
    scored = score(forecasts.astype(np.float32), targets)
    return calibrate(scored, targets, cohorts(targets)[cohort], UserBootstrap(targets.users))


def _drawn_from(
    chances: npt.NDArray[Any],
    per_user: int = 2,
) -> list[EncodedCase]:
    """Return a case for each row of chances, with one advertiser drawn from it."""
    random = np.random.default_rng(1)
    rows = [int(random.choice(chances.shape[1], p=row)) for row in chances]
    return [case(f"{index // per_user}", [], [row]) for index, row in enumerate(rows)]


def test_observed_is_the_share_of_the_days_advertisers() -> None:
    off = -2
    cases = [case("a", [], [0, 2, off]), case("b", [], [1])]
    targets = Targets.of(cases)
    forecasts = np.array([[0.5, 0.3, 0.1], [0.5, 0.3, 0.1]], dtype=np.float32)
    shares = observed_shares(score(forecasts, targets), targets, cohorts(targets)["all"])
    np.testing.assert_allclose(shares, np.array([[1, 0, 1], [0, 3, 0]]) / 3)
    assert (shares.sum(axis=1) <= 1).all()


def test_true_probabilities_are_calibrated_and_others_are_not() -> None:
    chances = np.random.default_rng(2).dirichlet(np.full(12, 0.3), 4000)
    cases = _drawn_from(chances)
    honest = _calibrate(cases, chances * 0.9999)
    assert honest.ece[0] < 0.01
    ratio = estimate(honest.predicted_over_observed)
    assert ratio.value == pytest.approx(1, abs=0.01)
    assert sum(b.observed.low <= b.predicted <= b.observed.high for b in honest.bins) >= BINS - 3
    halved = _calibrate(cases, chances / 2)
    assert estimate(halved.predicted_over_observed).value == pytest.approx(0.5, abs=0.01)
    assert halved.ece[0] == pytest.approx(1 / 24, abs=0.003)  # half of a mean of 1/12


def test_bins_hold_the_same_number_of_pairs() -> None:
    chances = np.random.default_rng(3).dirichlet(np.full(12, 0.3), 1000)
    bins = _calibrate(_drawn_from(chances), chances * 0.9999).bins
    assert len(bins) == BINS
    assert sum(b.pairs for b in bins) == 12_000
    assert all(abs(b.pairs - 800) <= 2 for b in bins)
    predicted = [b.predicted for b in bins]
    assert predicted == sorted(predicted)


def test_equal_predictions_share_a_bin() -> None:
    forecasts = np.tile([0.5, 0.25, 0.25], (60, 1))
    bins = _calibrate(_drawn_from(forecasts), forecasts).bins
    assert [(b.predicted, b.pairs) for b in bins] == [(0.25, 120), (0.5, 60)]


def test_the_error_is_that_of_its_definition() -> None:
    forecasts = np.tile([0.5, 0.25, 0.25], (60, 1))
    found = _calibrate(_drawn_from(forecasts), forecasts)
    gaps = [b.pairs * abs(b.predicted - b.observed.value) for b in found.bins]
    assert found.ece[0] == pytest.approx(sum(gaps) / 180)
    interval = estimate(found.ece, centred=True)
    assert interval.low <= found.ece[0] <= interval.high


def test_a_cohort_looks_at_its_own_cases() -> None:
    cases = [case("a", [], [0]), case("b", [], [1], covered=False), case("c", [], [1])]
    forecasts = np.tile([0.9, 0.1], (3, 1))
    found = _calibrate(cases, forecasts, "covered")
    assert [(b.pairs, b.observed.value) for b in found.bins] == [(2, 0.5), (2, 0.5)]
