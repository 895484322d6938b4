"""Encodes the arguments of a call as tensors, and checks them.

Tensors are 1-D: `_call.wire` adds the batch dimension. `user_context` encodes users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adprior_client.errors import InvalidArgumentError
from adprior_client.results import Forecast
from adprior_client.types import Ids, Numbers
from adprior_runtime import contract

ROUNDING = 1e-3
"""Sums of FP32 probabilities may exceed their bound by this much."""


def encode_top_k(k: int, field: str = "k") -> NDArray[Any]:
    """Return ``TOP_K`` or ``INTEREST_TOP_K``, shape [1].

    Raises:
        InvalidArgumentError: Naming ``field``: not an integer from 1 to ``contract.MAX_TOP_K``.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InvalidArgumentError(f"{field}: found {type(k).__name__}, expected an integer")
    if not 1 <= k <= contract.MAX_TOP_K:
        raise InvalidArgumentError(f"{field}: found {k}, expected 1 to {contract.MAX_TOP_K}")
    return np.array([k], dtype=np.int32)


def encode_ids(ids: Ids, field: str, limit: int | None = None) -> NDArray[np.int64]:
    """Return advertiser ids as INT64, shape [n]; duplicates are allowed.

    Raises:
        InvalidArgumentError: Naming ``field``: not a flat sequence of 64-bit integers, or more than
            ``limit`` of them, the server's limit.
    """
    _check_kinds(ids, field, (int, np.integer), "an integer")
    if limit is not None and len(ids) > limit:
        raise InvalidArgumentError(f"{field}: found {len(ids):,}, expected at most {limit:,}")
    try:
        values = np.array(ids if len(ids) else [], dtype=np.int64)
    except OverflowError as error:
        raise InvalidArgumentError(f"{field}: found an integer of more than 64 bits") from error
    if isinstance(ids, np.ndarray) and ids.dtype == np.uint64 and (values < 0).any():
        raise InvalidArgumentError(f"{field}: found an integer of more than 64 bits")
    return values


def encode_logits(logits: Numbers, field: str) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return numbers that are finite in FP32, shape [n]: as given, and as sent.

    Raises:
        InvalidArgumentError: Naming ``field`` and the first place that is not finite in FP32.
    """
    _check_kinds(logits, field, (int, float, np.integer, np.floating), "a number")
    try:
        values = np.array(logits, dtype=np.float64)
    except OverflowError as error:
        raise InvalidArgumentError(f"{field}: found an integer beyond FP32") from error
    with np.errstate(over="ignore"):
        sent = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(sent))
    if bad.size:
        raise InvalidArgumentError(
            f"{field}[{bad[0]}]: found {logits[bad[0]]}, expected a finite FP32 number"
        )
    return values, sent


def encode_forecast(forecast: Forecast) -> dict[str, NDArray[Any]]:
    """Return a forecast as inputs of ``prior_head``; an empty forecast is valid.

    Raises:
        InvalidArgumentError: It is malformed, or names an advertiser twice.
    """
    try:
        return _encode_forecast(forecast)
    except (AttributeError, TypeError) as error:
        raise InvalidArgumentError(f"forecast: malformed: {error}") from error


def _encode_forecast(forecast: Forecast) -> dict[str, NDArray[Any]]:
    for name, kind in (("exact", bool), ("bundle_id", str), ("request_id", str)):
        if not isinstance(value := getattr(forecast, name), kind):
            raise InvalidArgumentError(
                f"forecast.{name}: found {type(value).__name__}, expected {kind.__name__}"
            )
    if not 0.0 <= forecast.missing_mass <= 1.0:
        raise InvalidArgumentError(
            f"forecast.missing_mass: found {forecast.missing_mass}, expected 0 to 1"
        )
    ids = encode_ids(
        [item.advertiser_id for item in forecast.predicted],
        "forecast.advertiser_ids",
        contract.MAX_TOP_K,
    )
    values = [item.log_prob for item in forecast.predicted]
    log_probs, sent = encode_logits(values, "forecast.log_probs")
    if (log_probs > ROUNDING).any():
        raise InvalidArgumentError(
            f"forecast.log_probs: found {log_probs.max():.6g}, expected at most 0"
        )
    if len(np.unique(ids)) < ids.size:
        raise InvalidArgumentError("forecast.advertiser_ids: an advertiser is named twice")
    return {
        contract.ADVERTISER_IDS: ids,
        contract.LOG_PROBS: sent,
        contract.MISSING_MASS: np.array([forecast.missing_mass], dtype=np.float32),
        contract.EXACT: np.array([forecast.exact], dtype=np.bool_),
    }


def _check_kinds(values: Any, field: str, kinds: tuple[type, ...], expected: str) -> None:
    flat = values.ndim == 1 if isinstance(values, np.ndarray) else isinstance(values, Sequence)
    if not flat or isinstance(values, str | bytes | bytearray | np.ma.MaskedArray):
        raise InvalidArgumentError(
            f"{field}: found {type(values).__name__}, expected a flat sequence or 1-D array"
        )
    plain = isinstance(values, np.ndarray) and values.dtype != np.object_
    for kind in {values.dtype.type} if plain else set(map(type, values)):
        if issubclass(kind, bool) or not (issubclass(kind, kinds) or len(values) == 0):
            raise InvalidArgumentError(f"{field}: found a {kind.__name__}, expected {expected}")
