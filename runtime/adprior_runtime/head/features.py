"""The prior head's features: candidates looked up in a forecast.

For candidate i of advertiser a_i, with l_i = log P(a_i | user) or its bound and pi_i = the log of
a_i's smoothed share in training, the features are
x_i = (l_i, l_i - pi_i, status_i, 1/rank_i, forecast entropy, missing mass), after the calibrated
priors of arXiv 2605.27856. Serving and fitting call the same function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import (
    ADVERTISER_IDS,
    BASE_LOGITS,
    CANDIDATE_ADVERTISER_IDS,
    LOG_PROBS,
    MISSING_MASS,
    SCORED_EXACT,
    SCORED_LOG_PROBS,
    CandidateStatus,
)
from adprior_runtime.errors import AdpriorError, InvalidRequestError, ModelOutputError

FEATURE_NAMES: Final = (
    "log_prob",
    "log_prob_minus_popularity",
    "is_exact",
    "inverse_rank",
    "forecast_entropy",
    "missing_mass",
)
"""The columns of `CandidatePriors.features`."""

LOG_PROB_FLOOR: Final = -30.0
"""Floor for log-probabilities in features. Also the bound when the missing mass is 0 in FP32."""

_ROUNDING: Final = 1e-4
"""Sums of FP32 probabilities may exceed their bound by this much."""

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownForecast:
    """A forecast that candidates are ranked with: live, or one that the caller stored.

    Attributes:
        advertiser_ids: int64 [k], distinct.
        log_probs: float32 [k], in any order; their order by value gives the ranks.
        missing_mass: Upper bound on the probability of all advertisers not shown, in [0, 1].
        exact: Whether these are proved to be the k most probable, each with its full probability.
    """

    advertiser_ids: _Int64Array
    log_probs: _Float32Array
    missing_mass: float
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePriors:
    """The priors of the candidates of one request.

    Attributes:
        log_probs: float32 [n], at most 0: exact values, upper bounds, and `LOG_PROB_FLOOR` for
            candidates off the catalogue.
        statuses: uint8 [n], values of `CandidateStatus`.
        features: float32 [n, 6], columns as in `FEATURE_NAMES`, always finite, zero off the
            catalogue.
        has_forecast: False if the forecast is empty; the head then changes nothing.
    """

    log_probs: _Float32Array
    statuses: npt.NDArray[np.uint8]
    features: _Float32Array
    has_forecast: bool = True


def candidate_priors(
    forecast: KnownForecast,
    candidate_ids: _Int64Array,
    advertisers: Advertisers,
    forecast_k: int,
    *,
    scored_log_probs: _Float32Array | None = None,
    scored_exact: npt.NDArray[np.bool_] | None = None,
) -> CandidatePriors:
    """Look candidates up in a forecast; the arguments must pass `validate_head_request`.

    A candidate off the catalogue stays so even if a stale forecast names it. If the forecast does
    not show a candidate of the catalogue, its probability is at most the missing mass. If the
    forecast is not exact, an advertiser with several names may have up to the missing mass more
    than shown.

    Args:
        forecast: What is known of the user.
        candidate_ids: [n]; an id may be repeated.
        advertisers: The catalogue.
        forecast_k: The bundle's number; a longer forecast is cut to this length.
        scored_log_probs: [n], each candidate's log-probability or a bound on it, if the engine has
            scored the candidates; the tighter of the two bounds is used.
        scored_exact: [n], whether these are exact.
    """
    order = np.argsort(-forecast.log_probs, kind="stable")
    beyond = forecast.log_probs[order[forecast_k:]].astype(np.float64)
    forecast_ids = forecast.advertiser_ids[order[:forecast_k]]
    forecast_log_probs = np.minimum(forecast.log_probs[order[:forecast_k]], 0.0)
    mass = min(max(float(forecast.missing_mass), 0.0) + float(np.exp(beyond).sum()), 1.0)

    rows = advertisers.rows_of(candidate_ids)
    known = rows >= 0
    ranks = _ranks_in(forecast_ids, candidate_ids)
    shown = known & (ranks > 0)
    in_full = shown & (forecast.exact | (advertisers.path_counts[rows] == 1))
    log_probs = np.full(len(candidate_ids), -np.inf, dtype=np.float32)
    log_probs[shown] = forecast_log_probs[ranks[shown] - 1]
    bounded = known & ~in_full
    log_mass = np.log(mass) if mass > 0 else -np.inf
    log_probs[bounded] = np.minimum(np.logaddexp(log_probs[bounded], log_mass), 0.0)
    if scored_log_probs is not None and scored_exact is not None:
        closer = known & ~in_full & (scored_exact | (scored_log_probs < log_probs))
        log_probs[closer] = np.minimum(scored_log_probs[closer], 0.0)
        in_full = in_full | (known & scored_exact)
    floored = np.maximum(log_probs, LOG_PROB_FLOOR)

    features = np.zeros((len(candidate_ids), len(FEATURE_NAMES)), dtype=np.float32)
    features[:, 0] = floored
    features[:, 1] = floored - np.maximum(advertisers.log_popularity[rows], LOG_PROB_FLOOR)
    features[:, 2] = in_full
    features[shown, 3] = 1.0 / ranks[shown]
    features[:, 4] = _entropy(forecast_log_probs, mass)
    features[:, 5] = mass
    features[~known] = 0.0
    in_catalogue = np.where(in_full, CandidateStatus.EXACT, CandidateStatus.UPPER_BOUND)
    statuses = np.where(known, in_catalogue, CandidateStatus.NOT_IN_CATALOGUE)
    return CandidatePriors(
        log_probs=np.where(in_full, log_probs, floored).astype(np.float32),
        statuses=statuses.astype(np.uint8),
        features=features,
        has_forecast=len(forecast_ids) > 0,
    )


def validate_head_request(
    forecast: KnownForecast, candidate_ids: _Int64Array, base_logits: _Float32Array
) -> None:
    """Check a request to the prior head; it may have an empty forecast, and no candidates.

    Args:
        forecast: A forecast; its log-probabilities may be -inf.
        candidate_ids: [n].
        base_logits: [n].

    Raises:
        InvalidRequestError: A tensor breaks the contract; the message names it.
    """
    log_probs, missing_mass = forecast.log_probs, forecast.missing_mass
    _check_length(LOG_PROBS, log_probs, ADVERTISER_IDS, forecast.advertiser_ids)
    _check_length(BASE_LOGITS, base_logits, CANDIDATE_ADVERTISER_IDS, candidate_ids)
    ids, counts = np.unique(forecast.advertiser_ids, return_counts=True)
    if (counts > 1).any():
        raise InvalidRequestError(
            f"{ADVERTISER_IDS}: found {ids[counts > 1][0]} {counts.max()} times, expected once"
        )
    _check_log_probs(LOG_PROBS, log_probs)
    if not 0.0 <= missing_mass <= 1.0 + _ROUNDING:  # written so that NaN fails
        raise InvalidRequestError(f"{MISSING_MASS}: found {missing_mass}, expected 0 to 1")
    if not np.isfinite(base_logits).all():
        place = int(np.flatnonzero(~np.isfinite(base_logits))[0])
        raise InvalidRequestError(
            f"{BASE_LOGITS}[{place}]: found {base_logits[place]:.6g}, expected a finite number"
        )


def validate_scores(
    candidate_ids: _Int64Array,
    scored_log_probs: _Float32Array | None,
    scored_exact: npt.NDArray[np.bool_] | None,
) -> None:
    """Check an engine's scores of the candidates; they may be absent.

    Args:
        candidate_ids: [n].
        scored_log_probs: [n]; -inf is valid.
        scored_exact: [n], given if and only if ``scored_log_probs`` is.

    Raises:
        ModelOutputError: A tensor breaks the contract; the message names it.
    """
    scores = {SCORED_LOG_PROBS: scored_log_probs, SCORED_EXACT: scored_exact}
    absent = [name for name, values in scores.items() if values is None]
    if len(absent) == 1:
        (there,) = scores.keys() - set(absent)
        raise ModelOutputError(f"{absent[0]}: missing beside {there}, expected both or neither")
    for name, values in scores.items():
        if values is not None and values.shape != candidate_ids.shape:
            raise ModelOutputError(
                f"{name}: found shape {values.shape}, expected {candidate_ids.shape}, "
                f"one for each of {CANDIDATE_ADVERTISER_IDS}"
            )
    if scored_log_probs is not None:
        _check_log_probs(SCORED_LOG_PROBS, scored_log_probs, ModelOutputError)


def _check_log_probs(
    name: str, values: _Float32Array, error: type[AdpriorError] = InvalidRequestError
) -> None:
    is_good = values <= _ROUNDING  # written so that NaN fails
    if not is_good.all():
        place = int(np.flatnonzero(~is_good)[0])
        raise error(f"{name}[{place}]: found {values[place]:.6g}, expected at most 0")


def _check_length(
    name: str, values: npt.NDArray[Any], ids_name: str, ids: npt.NDArray[Any]
) -> None:
    if ids.ndim != 1:
        raise InvalidRequestError(f"{ids_name}: found shape {ids.shape}, expected one dimension")
    if values.shape != ids.shape:
        raise InvalidRequestError(
            f"{name}: found shape {values.shape}, expected {ids.shape}, one for each of {ids_name}"
        )


def _ranks_in(forecast_ids: _Int64Array, wanted: _Int64Array) -> _Int64Array:
    """Return the rank of each wanted id, counted from 1; 0 if it is absent."""
    if len(forecast_ids) == 0:
        return np.zeros(len(wanted), dtype=np.int64)
    by_id = np.argsort(forecast_ids)
    places = np.minimum(np.searchsorted(forecast_ids, wanted, sorter=by_id), len(by_id) - 1)
    positions = by_id[places]
    return np.where(forecast_ids[positions] == wanted, positions + 1, 0)


def _entropy(log_probs: _Float32Array, missing_mass: float) -> float:
    """Return the entropy in nats; all advertisers not shown count as one."""
    logs = np.clip(log_probs.astype(np.float64), LOG_PROB_FLOOR, 0.0)
    rest = missing_mass * np.log(missing_mass) if missing_mass > 0 else 0.0
    return abs(float((np.exp(logs) * logs).sum() + rest))
