"""Values <-> tensors: the caller's are checked before the wire, the server's after it.

Tensors here are 1-D, without the batch dimension, which the connection adds and takes away.
How a user becomes JSON is in `adprior_client.user_context`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client.errors import BadAnswerError, InvalidArgumentError
from adprior_client.types import (
    Advertiser,
    CandidateStatusName,
    Forecast,
    RankedCandidate,
    Ranking,
    User,
)
from adprior_client.user_context import user_to_json
from adprior_runtime import contract
from adprior_runtime.contract import CandidateStatus

__all__ = [
    "decode_exact",
    "decode_forecast",
    "decode_ranking",
    "encode_forecast",
    "encode_ids",
    "encode_logits",
    "encode_top_k",
    "encode_user",
]

# Sums of FP32 probabilities may step this far over their bound.
_ROUNDING: Final = 1e-3
_STATUS_NAMES: Final[dict[int, CandidateStatusName]] = {
    CandidateStatus.EXACT: "exact",
    CandidateStatus.UPPER_BOUND: "upper_bound",
    CandidateStatus.NOT_IN_CATALOGUE: "not_in_catalogue",
}

Tensors = Mapping[str, NDArray[Any]]


# --- what the caller gives ------------------------------------------------------------------------
def encode_user(user: User | Mapping[str, Any] | bytes) -> NDArray[Any]:
    """Return ``USER_CONTEXT``, shape [1]; raises as `user_to_json` does."""
    return np.array([user_to_json(user)], dtype=np.object_)


def encode_top_k(k: int) -> NDArray[Any]:
    """Return ``TOP_K``, shape [1].

    Raises:
        InvalidArgumentError: ``k`` is not an integer from 1 to ``contract.MAX_TOP_K``.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InvalidArgumentError(f"k: found {type(k).__name__}, expected an integer")
    if not 1 <= k <= contract.MAX_TOP_K:
        raise InvalidArgumentError(f"k: found {k}, expected 1 to {contract.MAX_TOP_K}")
    return np.array([k], dtype=np.int32)


def encode_ids(ids: Sequence[int], field: str) -> NDArray[Any]:
    """Return advertiser ids as INT64, shape [n]; duplicates are allowed.

    Raises:
        InvalidArgumentError: Naming ``field``: not a flat sequence of integers of 64 bits.
    """
    _check_kinds(ids, field, (int, np.integer), "an integer")
    try:
        return np.array([int(value) for value in ids], dtype=np.int64)
    except OverflowError as error:
        raise InvalidArgumentError(f"{field}: found an integer of more than 64 bits") from error


def encode_logits(logits: Sequence[float], field: str) -> NDArray[Any]:
    """Return finite numbers as FP32, shape [n].

    Raises:
        InvalidArgumentError: Naming ``field`` and the first place that is not finite in FP32.
    """
    _check_kinds(logits, field, (int, float, np.integer, np.floating), "a number")
    try:
        with np.errstate(over="ignore"):
            values = np.array(logits, dtype=np.float64).astype(np.float32)
    except OverflowError as error:
        raise InvalidArgumentError(f"{field}: found an integer beyond FP32") from error
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise InvalidArgumentError(
            f"{field}[{bad[0]}]: found {logits[bad[0]]}, expected a finite FP32 number"
        )
    return values


def encode_forecast(forecast: Forecast) -> dict[str, NDArray[Any]]:
    """Return the inputs of ``prior_head`` that a forecast makes; an empty forecast is valid.

    Raises:
        InvalidArgumentError: A log-probability is not finite, or the missing mass not in [0, 1].
    """
    if not 0.0 <= forecast.missing_mass <= 1.0:
        raise InvalidArgumentError(
            f"forecast.missing_mass: found {forecast.missing_mass}, expected 0 to 1"
        )
    ids = [advertiser.advertiser_id for advertiser in forecast.advertisers]
    log_probs = [advertiser.log_prob for advertiser in forecast.advertisers]
    return {
        contract.ADVERTISER_IDS: encode_ids(ids, "forecast.advertiser_ids"),
        contract.LOG_PROBS: encode_logits(log_probs, "forecast.log_probs"),
        contract.MISSING_MASS: np.array([forecast.missing_mass], dtype=np.float32),
        contract.EXACT: np.array([forecast.exact], dtype=np.bool_),
    }


# --- what the server gives ------------------------------------------------------------------------
def decode_forecast(tensors: Tensors) -> Forecast:
    """Build a forecast from the outputs of ``advertiser_retrieval``.

    Raises:
        BadAnswerError: Lengths differ, or a value is impossible.
    """
    ids = tensors[contract.ADVERTISER_IDS]
    log_probs, names = tensors[contract.LOG_PROBS], tensors[contract.ADVERTISER_NAMES]
    _check_lengths(ids.size, {contract.LOG_PROBS: log_probs, contract.ADVERTISER_NAMES: names})
    if not (np.isfinite(log_probs) & (log_probs <= _ROUNDING)).all():
        raise BadAnswerError(f"{contract.LOG_PROBS}: found a value that is no log-probability")
    missing = float(tensors[contract.MISSING_MASS][0])
    if not -_ROUNDING <= missing <= 1.0 + _ROUNDING:
        raise BadAnswerError(f"{contract.MISSING_MASS}: found {missing}, expected 0 to 1")
    rows = zip(ids.tolist(), names.tolist(), log_probs.tolist(), strict=True)
    return Forecast(
        advertisers=tuple(
            Advertiser(
                advertiser_id=advertiser_id,
                name=_decode_text(name, contract.ADVERTISER_NAMES),
                log_prob=log_prob,
            )
            for advertiser_id, name, log_prob in rows
        ),
        exact=decode_exact(tensors),
        missing_mass=min(max(missing, 0.0), 1.0),
        bundle_id=_decode_text(tensors[contract.BUNDLE_ID][0], contract.BUNDLE_ID),
    )


def decode_exact(tensors: Tensors) -> bool:
    """Return ``EXACT``, the certificate."""
    return bool(tensors[contract.EXACT][0])


def decode_ranking(asked: Tensors, answer: Tensors, *, exact: bool | None) -> Ranking:
    """Build a ranking from what was asked and the outputs of ``prior_head``.

    Args:
        asked: ``CANDIDATE_ADVERTISER_IDS`` and ``BASE_LOGITS``.
        answer: ``ADJUSTED_LOGITS``, ``CANDIDATE_LOG_PROBS``, ``CANDIDATE_STATUS``, ``BUNDLE_ID``.
        exact: The certificate of the forecast behind it.

    Raises:
        BadAnswerError: Lengths differ, or a value is impossible.
    """
    ids, base = asked[contract.CANDIDATE_ADVERTISER_IDS], asked[contract.BASE_LOGITS]
    adjusted, status = answer[contract.ADJUSTED_LOGITS], answer[contract.CANDIDATE_STATUS]
    log_probs = answer[contract.CANDIDATE_LOG_PROBS]
    _check_priors(ids.size, answer)
    rows = zip(
        *(column.tolist() for column in (ids, base, adjusted, log_probs, status)), strict=True
    )
    return Ranking(
        candidates=tuple(
            RankedCandidate(
                advertiser_id=advertiser_id,
                base_logit=base_logit,
                adjusted_logit=adjusted_logit,
                log_prob=None if code == CandidateStatus.NOT_IN_CATALOGUE else log_prob,
                status=_STATUS_NAMES[code],
            )
            for advertiser_id, base_logit, adjusted_logit, log_prob, code in rows
        ),
        bundle_id=_decode_text(answer[contract.BUNDLE_ID][0], contract.BUNDLE_ID),
        exact=exact,
    )


# --- helpers --------------------------------------------------------------------------------------
def _check_kinds(values: Any, field: str, kinds: tuple[type, ...], expected: str) -> None:
    flat = values.ndim == 1 if isinstance(values, np.ndarray) else isinstance(values, Sequence)
    if not flat or isinstance(values, str | bytes | bytearray):
        raise InvalidArgumentError(
            f"{field}: found {type(values).__name__}, expected a flat sequence or 1-D array"
        )
    for kind in set(map(type, values)):
        if issubclass(kind, bool) or not issubclass(kind, kinds):
            raise InvalidArgumentError(f"{field}: found a {kind.__name__}, expected {expected}")


def _check_priors(expected: int, answer: Tensors) -> None:
    adjusted, status = answer[contract.ADJUSTED_LOGITS], answer[contract.CANDIDATE_STATUS]
    log_probs = answer[contract.CANDIDATE_LOG_PROBS]
    named = (contract.ADJUSTED_LOGITS, contract.CANDIDATE_STATUS, contract.CANDIDATE_LOG_PROBS)
    _check_lengths(expected, {name: answer[name] for name in named})
    if not np.isfinite(adjusted).all():
        raise BadAnswerError(f"{contract.ADJUSTED_LOGITS}: found a value that is not finite")
    unknown = set(status.tolist()) - _STATUS_NAMES.keys()
    if unknown:
        raise BadAnswerError(
            f"{contract.CANDIDATE_STATUS}: found {min(unknown)}, expected {sorted(_STATUS_NAMES)}"
        )
    known = status != CandidateStatus.NOT_IN_CATALOGUE
    # Written so that NaN fails; -inf, no chance at all, passes.
    if not (log_probs[known] <= _ROUNDING).all():
        raise BadAnswerError(
            f"{contract.CANDIDATE_LOG_PROBS}: found a value that is no log-probability"
        )


def _check_lengths(expected: int, tensors: Tensors) -> None:
    for name, values in tensors.items():
        if values.size != expected:
            raise BadAnswerError(f"{name}: found {values.size} values, expected {expected}")


def _decode_text(raw: bytes, field: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadAnswerError(f"{field}: not UTF-8 at byte {error.start}") from error
