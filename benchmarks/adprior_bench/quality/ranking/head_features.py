"""The prior head's features from a probability matrix, computed by the function that serves them.

The head sees the first K advertisers of a forecast, the probability mass outside them, and each
candidate's own log-probability. All forecasts, the model's and others, go through the same steps.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.head.features import (
    FEATURE_NAMES,
    CandidatePriors,
    KnownForecast,
    candidate_priors,
)

_FILL: Final = 0.01
"""Share of popularity in a forecast with zeros, so that the head never sees log 0."""

_Float32Array = npt.NDArray[np.float32]


def head_features(
    probabilities: npt.NDArray[Any],
    impressions: Impressions,
    advertisers: Advertisers,
    forecast_k: int,
) -> _Float32Array:
    """Return the head's features of each row: float32 [rows, features].

    Args:
        probabilities: [cases, advertisers], each row with a sum of at most 1; the rest is outside
            the catalogue. A row of 0 is replaced by popularity.
        impressions: The candidates.
        advertisers: The catalogue, with the matrix's columns as its rows.
        forecast_k: Number of advertisers in the forecast.
    """
    popularity = np.exp(advertisers.log_popularity.astype(np.float64))
    features = np.zeros((len(impressions.rows), len(FEATURE_NAMES)), dtype=np.float32)
    for case, part in impressions.requests():
        forecast = _fill(probabilities[case].astype(np.float64), popularity)
        features[part] = _features(forecast, impressions.rows[part], advertisers, forecast_k)
    return features


def live_priors(features: _Float32Array) -> CandidatePriors:
    """Return the priors of exactly scored candidates, as a served head takes them."""
    return CandidatePriors(
        log_probs=features[:, FEATURE_NAMES.index("log_prob")],
        statuses=np.full(len(features), CandidateStatus.EXACT, dtype=np.uint8),
        features=features,
    )


def _fill(forecast: Float64Array, popularity: Float64Array) -> Float64Array:
    if not forecast.any():
        return popularity
    if forecast.all():
        return forecast
    filled: Float64Array = (1 - _FILL) * forecast + _FILL * popularity
    return filled


def _features(
    forecast: Float64Array,
    rows: npt.NDArray[np.int32],
    advertisers: Advertisers,
    forecast_k: int,
) -> _Float32Array:
    count = min(forecast_k, len(forecast))
    first = np.argpartition(-forecast, count - 1)[:count]
    shown = first[np.lexsort((first, -forecast[first]))]
    known = KnownForecast(
        advertiser_ids=advertisers.ids[shown],
        log_probs=np.log(forecast[shown]).astype(np.float32),
        missing_mass=float(np.clip(forecast.sum() - forecast[shown].sum(), 0.0, 1.0)),
        exact=True,
    )
    return candidate_priors(
        known,
        advertisers.ids[rows],
        advertisers,
        forecast_k,
        scored_log_probs=np.log(forecast[rows]).astype(np.float32),
        scored_exact=np.ones(len(rows), dtype=np.bool_),
    ).features
