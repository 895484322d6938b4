from __future__ import annotations

import numpy as np
import pytest

from adprior_bench.quality.ranking.head_features import head_features
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.head.features import FEATURE_NAMES, LOG_PROB_FLOOR


@pytest.fixture(scope="module")
def advertisers() -> Advertisers:
    return Advertisers.build([7, 8, 9, 20], ["a", "b", "c", "d"], [1, 2, 1, 1], [5, 2, 1, 0])


def impressions(cases: list[int], rows: list[int]) -> Impressions:
    return Impressions(
        cases=np.array(cases), rows=np.array(rows, dtype=np.int32), labels=np.zeros(len(rows))
    )


def test_features_by_hand(advertisers: Advertisers) -> None:
    forecast = np.array([[0.1, 0.4, 0.05, 0.25]], dtype=np.float32)
    found = head_features(forecast, impressions([0] * 4, [0, 1, 2, 3]), advertisers, 2)
    columns = dict(zip(FEATURE_NAMES, found.T, strict=True))
    shares = np.array([6, 3, 2, 1]) / 12
    np.testing.assert_allclose(columns["log_prob"], np.log(forecast[0]), rtol=1e-5)
    np.testing.assert_allclose(
        columns["log_prob_minus_popularity"], np.log(forecast[0] / shares), rtol=1e-5
    )
    assert columns["is_exact"].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(columns["inverse_rank"], [0, 1, 0, 0.5])
    np.testing.assert_allclose(columns["missing_mass"], [0.15] * 4, rtol=1e-5)
    entropy = -sum(p * np.log(p) for p in (0.4, 0.25, 0.15))
    np.testing.assert_allclose(columns["forecast_entropy"], [entropy] * 4, rtol=1e-5)


def test_each_case_has_its_own_forecast(advertisers: Advertisers) -> None:
    forecasts = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    both = head_features(forecasts, impressions([0, 0, 1], [0, 3, 3]), advertisers, 20)
    np.testing.assert_allclose(np.exp(both[:, 0]), [0.7, 0.1, 0.7], rtol=1e-6)
    alone = head_features(forecasts[1:], impressions([0], [3]), advertisers, 20)
    assert both[2].tobytes() == alone[0].tobytes()


def test_what_is_called_impossible_has_some_of_the_popularity(advertisers: Advertisers) -> None:
    forecasts = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = head_features(forecasts, impressions([0, 0, 1, 1], [0, 3, 0, 3]), advertisers, 2)
    expected = [0.99 * 0.5 + 0.01 / 2, 0.01 / 12, 1 / 2, 1 / 12]
    np.testing.assert_allclose(np.exp(found[:, 0]), expected, rtol=1e-5)
    assert (found[:, 0] > LOG_PROB_FLOOR).all()
