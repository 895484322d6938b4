"""Decodes a server's answer as a forecast or priors, and checks it.

Tensors are 1-D: `wire` removes the batch dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client.encoding import ROUNDING
from adprior_client.errors import BadAnswerError
from adprior_client.results import Advertiser, Forecast, Interest
from adprior_client.types import Source
from adprior_runtime import contract
from adprior_runtime.contract import CandidateStatus

_STATUSES: Final = frozenset(CandidateStatus)

Tensors = Mapping[str, NDArray[Any]]


def decode_bundle_id(tensors: Tensors) -> str:
    """Return ``BUNDLE_ID`` of an answer.

    Raises:
        BadAnswerError: The answer follows another version of the contract.
    """
    version = _decode_text(tensors[contract.ANSWER_VERSION][0], contract.ANSWER_VERSION)
    if version != contract.CONTRACT_VERSION:
        raise BadAnswerError(
            f"{contract.ANSWER_VERSION}: found {version}, expected {contract.CONTRACT_VERSION}"
        )
    return _decode_text(tensors[contract.BUNDLE_ID][0], contract.BUNDLE_ID)


def decode_forecast(
    tensors: Tensors, request_id: str = "", inputs: Tensors | None = None
) -> Forecast:
    """Build a live forecast from outputs of ``advertiser_retrieval`` or ``advertiser_ranking``.

    Args:
        tensors: The outputs.
        request_id: Id of the call.
        inputs: The inputs; the answer must respect ``TOP_K``, ``INTEREST_TOP_K`` and
            ``EXCLUDED_ADVERTISER_IDS``.

    Raises:
        BadAnswerError: Lengths differ, or a value is impossible.
    """
    ids, log_probs = tensors[contract.ADVERTISER_IDS], tensors[contract.LOG_PROBS]
    names = tensors.get(contract.ADVERTISER_NAMES, np.full(ids.size, b"", dtype=np.object_))
    _check_lengths(ids.size, {contract.LOG_PROBS: log_probs, contract.ADVERTISER_NAMES: names})
    _check_forecast(ids, log_probs, inputs or {})
    missing = float(tensors[contract.MISSING_MASS][0])
    if not -ROUNDING <= missing <= 1.0 + ROUNDING:
        raise BadAnswerError(f"{contract.MISSING_MASS}: found {missing}, expected 0 to 1")
    rows = zip(ids.tolist(), names.tolist(), np.minimum(log_probs, 0).tolist(), strict=True)
    return Forecast(
        advertisers=tuple(
            Advertiser(
                advertiser_id=advertiser_id,
                name=_decode_text(name, contract.ADVERTISER_NAMES),
                log_prob=log_prob,
            )
            for advertiser_id, name, log_prob in rows
        ),
        exact=bool(tensors[contract.EXACT][0]),
        missing_mass=min(max(missing, 0.0), 1.0),
        bundle_id=decode_bundle_id(tensors),
        source=Source.LIVE,
        made_at=datetime.now(UTC),
        request_id=request_id,
        interests=_decode_interests(tensors, inputs or {}),
    )


def _decode_interests(tensors: Tensors, inputs: Tensors) -> tuple[Interest, ...]:
    """Return an answer's interests, none if none were asked for."""
    if contract.INTEREST_IDS not in tensors:
        return ()
    ids, log_probs = tensors[contract.INTEREST_IDS], tensors[contract.INTEREST_LOG_PROBS]
    names = tensors[contract.INTEREST_NAMES]
    lengths = {contract.INTEREST_LOG_PROBS: log_probs, contract.INTEREST_NAMES: names}
    _check_lengths(ids.size, lengths)
    _check_list(contract.INTEREST_IDS, ids, contract.INTEREST_LOG_PROBS, log_probs)
    _check_count(contract.INTEREST_IDS, ids, inputs.get(contract.INTEREST_TOP_K))
    rows = zip(ids.tolist(), names.tolist(), np.minimum(log_probs, 0).tolist(), strict=True)
    return tuple(
        Interest(
            interest_id=interest_id,
            name=_decode_text(name, contract.INTEREST_NAMES),
            log_prob=log_prob,
        )
        for interest_id, name, log_prob in rows
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priors:
    """The priors of candidates.

    Attributes:
        adjustments: float64 [n], to add to the base logits.
        log_probs: float32 [n], NaN for advertisers outside the catalogue.
        statuses: uint8 [n], `contract.CandidateStatus`.
        bundle_id: The bundle that answered.
        has_fitted_head: Whether that bundle's head is fitted.
    """

    adjustments: NDArray[np.float64]
    log_probs: NDArray[np.float32]
    statuses: NDArray[np.uint8]
    bundle_id: str
    has_fitted_head: bool


def decode_priors(count: int, answer: Tensors) -> Priors:
    """Read the outputs of ``prior_head``.

    Args:
        count: Number of candidates sent.
        answer: ``ADJUSTMENTS``, ``CANDIDATE_LOG_PROBS``, ``CANDIDATE_STATUS``,
            ``ADJUSTMENT_LIMIT``, ``BUNDLE_ID``, ``CONTRACT_VERSION``.

    Raises:
        BadAnswerError: Lengths differ, a value is impossible, or an adjustment exceeds the
            bundle's limit.
    """
    status, log_probs = answer[contract.CANDIDATE_STATUS], answer[contract.CANDIDATE_LOG_PROBS]
    named = (contract.ADJUSTMENTS, contract.CANDIDATE_STATUS, contract.CANDIDATE_LOG_PROBS)
    _check_lengths(count, {name: answer[name] for name in named})
    if status.max(initial=0) > max(_STATUSES):
        raise BadAnswerError(
            f"{contract.CANDIDATE_STATUS}: found {status.max()}, expected {sorted(_STATUSES)}"
        )
    is_known = status != CandidateStatus.NOT_IN_CATALOGUE
    # NaN fails this comparison; -inf, probability 0, passes.
    if not (log_probs[is_known] <= ROUNDING).all():
        raise BadAnswerError(
            f"{contract.CANDIDATE_LOG_PROBS}: found a value that is not a log-probability"
        )
    adjustments = answer[contract.ADJUSTMENTS].astype(np.float64)
    limit = float(answer[contract.ADJUSTMENT_LIMIT][0])
    _check_adjustments(adjustments, is_known, limit)
    return Priors(
        adjustments=adjustments,
        log_probs=np.where(is_known, log_probs, np.float32(np.nan)),
        statuses=status,
        bundle_id=decode_bundle_id(answer),
        has_fitted_head=limit > 0.0,
    )


def _check_forecast(ids: NDArray[Any], log_probs: NDArray[Any], inputs: Tensors) -> None:
    _check_list(contract.ADVERTISER_IDS, ids, contract.LOG_PROBS, log_probs)
    _check_count(contract.ADVERTISER_IDS, ids, inputs.get(contract.TOP_K))
    if np.isin(ids, inputs.get(contract.EXCLUDED_ADVERTISER_IDS, [])).any():
        raise BadAnswerError(f"{contract.ADVERTISER_IDS}: an excluded advertiser")


def _check_list(
    ids_name: str, ids: NDArray[Any], log_probs_name: str, log_probs: NDArray[Any]
) -> None:
    """Refuse a list of advertisers or interests with impossible values."""
    if not (np.isfinite(log_probs) & (log_probs <= ROUNDING)).all():
        raise BadAnswerError(f"{log_probs_name}: found a value that is not a log-probability")
    if (np.diff(log_probs) > 0).any():
        raise BadAnswerError(f"{log_probs_name}: not the most probable first")
    if (total := float(np.exp(log_probs.astype(np.float64)).sum())) > 1.0 + ROUNDING:
        raise BadAnswerError(f"{log_probs_name}: probabilities of {total:.6g} together")
    if len(np.unique(ids)) < ids.size:
        raise BadAnswerError(f"{ids_name}: one of them is named twice")


def _check_count(name: str, ids: NDArray[Any], asked: NDArray[Any] | None) -> None:
    if asked is not None and ids.size > asked[0]:
        raise BadAnswerError(f"{name}: found {ids.size}, asked for {asked[0]}")


def _check_adjustments(
    adjustments: NDArray[np.float64],
    is_known: NDArray[np.bool_],
    limit: float,
) -> None:
    if not np.isfinite(adjustments).all():
        raise BadAnswerError(f"{contract.ADJUSTMENTS}: found a value that is not finite")
    if not (np.abs(adjustments) <= limit).all():  # a limit that is NaN fails
        raise BadAnswerError(
            f"{contract.ADJUSTMENTS}: found a change of {np.abs(adjustments).max():.6g}, "
            f"the bundle's limit is {limit:.6g}"
        )
    if adjustments[~is_known].any():
        raise BadAnswerError(
            f"{contract.ADJUSTMENTS}: found a change for an advertiser outside the catalogue"
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
