"""Forecasts given as probability matrices, as the prior head would see them in serving.

Any forecaster can be asked for a probability of every advertiser. What the head gets of it are the
first K, the mass that these miss, and each candidate's own log-probability, put together by the
function that serving uses. So every forecast, real or not, goes through the same pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.head.features import (
    FEATURE_NAMES,
    CandidatePriors,
    KnownForecast,
    candidate_priors,
)

_FILLING: Final = 0.01
"""Popularity's part in a forecast that calls an advertiser impossible, as no language model does:
the head would look at log 0."""

_Float32Array = npt.NDArray[np.float32]


def matrix_features(
    probabilities: npt.NDArray[Any],
    impressions: Impressions,
    advertisers: Advertisers,
    forecast_k: int,
) -> _Float32Array:
    """Return the head's features of each row: float32 [rows, features].

    Args:
        probabilities: [cases, advertisers], at least 0, each case's sum at most 1; what is lacking
            lies outside the catalogue. A case without any takes the popularity's.
        impressions: The candidates.
        advertisers: The catalogue; its rows are the matrix's columns.
        forecast_k: How many advertisers the head is shown.
    """
    popular = np.exp(advertisers.log_popularity.astype(np.float64))
    features = np.zeros((len(impressions.rows), len(FEATURE_NAMES)), dtype=np.float32)
    owners, starts = np.unique(impressions.cases, return_index=True)
    stops = [*starts[1:].tolist(), len(impressions.rows)]
    for owner, start, stop in zip(owners.tolist(), starts.tolist(), stops, strict=True):
        forecast = _filled(probabilities[owner].astype(np.float64), popular)
        rows = impressions.rows[start:stop]
        features[start:stop] = _features(forecast, rows, advertisers, forecast_k)
    return features


def live_priors(features: _Float32Array) -> CandidatePriors:
    """Return the priors of candidates scored exactly, as a served head takes them.

    Args:
        features: As `matrix_features` gives them.
    """
    column = features[:, FEATURE_NAMES.index("log_prob")]
    return CandidatePriors(
        log_probs=column,
        statuses=np.full(len(features), CandidateStatus.EXACT, dtype=np.uint8),
        features=features,
    )


def random_forecast(probabilities: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Deal each case's probabilities out anew among the advertisers.

    They are as sharp as they were, and say nothing: [cases, advertisers].
    """
    return np.random.default_rng(seed).permuted(probabilities, axis=1)


def shuffled_forecast(
    probabilities: npt.NDArray[Any], cases: Sequence[EncodedCase], seed: int
) -> npt.NDArray[Any]:
    """Give each case a forecast that was made for another user: [cases, advertisers].

    Users pass theirs around a circle; a user with more cases than the giver gets some twice. What
    is true of everyone stays, and what is true of the user goes. One user alone keeps their own.
    """
    random = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        places.setdefault(case.user.user_id, []).append(place)
    users = random.permutation(sorted(places)).tolist()
    given = np.zeros(len(cases), dtype=np.int64)
    for taker, giver in zip(users, [*users[1:], users[0]], strict=True):
        given[places[taker]] = np.resize(random.permutation(places[giver]), len(places[taker]))
    return probabilities[given]


def _filled(forecast: Float64Array, popular: Float64Array) -> Float64Array:
    if not forecast.any():
        return popular
    if forecast.all():
        return forecast
    filled: Float64Array = (1 - _FILLING) * forecast + _FILLING * popular
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
