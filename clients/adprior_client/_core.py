"""What both kinds of client share: their parts, and how forecasts and scores are come by.

The order of sources is live, stored, none. No input or output happens here; see
`adprior_client._calls`.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client import codec
from adprior_client._calls import Call, Lookup, Steps, ask
from adprior_client._fleet import Fleet
from adprior_client._wire import Request
from adprior_client.config import ClientConfig, check_number
from adprior_client.errors import ClientError, InvalidArgumentError, OtherBundleError
from adprior_client.results import Forecast, Ranking
from adprior_client.types import Reason, Source, UserId
from adprior_runtime import contract

__all__ = ["Candidates", "Core"]

_log = logging.getLogger("adprior_client")
_FORECAST: Final = (
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.ADVERTISER_NAMES,
    contract.EXACT,
    contract.MISSING_MASS,
    contract.BUNDLE_ID,
    contract.ANSWER_VERSION,
)
_PRIORS: Final = (
    contract.ADJUSTED_LOGITS,
    contract.CANDIDATE_LOG_PROBS,
    contract.CANDIDATE_STATUS,
    contract.ADJUSTMENT_LIMIT,
    contract.BUNDLE_ID,
    contract.ANSWER_VERSION,
)
_LIVE_PRIORS: Final = (
    *_PRIORS,
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.EXACT,
    contract.MISSING_MASS,
)
_NO_ANSWER: Final = 3
"""`Ranking.statuses` where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """One ranking's candidates.

    Attributes:
        ids: int64 [n].
        base: float64 [n], as the caller gave them.
        sent: float32 [n], as they are sent.
        treatment: Whether the user is treated.
    """

    ids: NDArray[np.int64]
    base: NDArray[np.float64]
    sent: NDArray[np.float32]
    treatment: bool

    @classmethod
    def of(
        cls, candidates: Sequence[int], base_logits: Sequence[float], *, treatment: bool
    ) -> Candidates:
        """Check what a caller gives.

        Raises:
            InvalidArgumentError: A value is impossible, or the lengths differ.
        """
        ids = codec.encode_ids(candidates, "candidates")
        base, sent = codec.encode_logits(base_logits, "base_logits")
        if ids.size != sent.size:
            raise InvalidArgumentError(
                f"base_logits: found {sent.size}, expected {ids.size}, one for each candidate"
            )
        _check_flag(treatment)
        return cls(ids=ids, base=base, sent=sent, treatment=treatment)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return them as inputs of the models."""
        return {contract.CANDIDATE_ADVERTISER_IDS: self.ids, contract.BASE_LOGITS: self.sent}


class Core:
    """A client without its channels.

    Args:
        config: How to behave.
        has_stored: Whether a `Lookup` can be answered.
        kill_switch: Asked at each call: while it is true, nothing else is.
    """

    def __init__(
        self, config: ClientConfig, *, has_stored: bool, kill_switch: Callable[[], bool] | None
    ) -> None:
        self.config = config
        self.fleet = Fleet(config)
        self._has_stored = has_stored
        self._kill_switch = kill_switch

    def begin(
        self, key: bytes, user_id: UserId | None, deadline_s: float | None, request_id: str | None
    ) -> Call:
        """Return a call that starts now.

        Raises:
            InvalidArgumentError: An argument has the wrong type.
        """
        timeout_s = self.config.deadline_s
        if deadline_s is not None:
            timeout_s = check_number(deadline_s, "deadline_s")
        if user_id is not None:
            if isinstance(user_id, bool) or not isinstance(user_id, str | int):
                raise InvalidArgumentError(
                    f"user_id: found {type(user_id).__name__}, expected text or an integer"
                )
            key = repr(user_id).encode()
        if request_id is not None and not isinstance(request_id, str):
            raise InvalidArgumentError(
                f"request_id: found {type(request_id).__name__}, expected text"
            )
        return Call(
            key=key,
            deadline=time.monotonic() + timeout_s,
            timeout_s=timeout_s,
            request_id=request_id or uuid.uuid4().hex,
            user_id=user_id,
        )

    def forecast(
        self, call: Call, tensors: Mapping[str, NDArray[Any]], *, treatment: bool
    ) -> Steps[Forecast]:
        """Forecast: live, else stored, else none."""
        if off := self._is_off(treatment):
            return Forecast.none(off, call.request_id)
        request = Request.of(contract.ADVERTISER_RETRIEVAL, tensors, _FORECAST)
        try:
            found = yield from ask(
                self.fleet, call, request, lambda t: codec.decode_forecast(t, call.request_id)
            )
        except ClientError as error:
            if not self.config.fail_open:
                raise
            stored = yield from self._stored(call)
            found = Forecast.none(error.reason, call.request_id)
            if stored is not None:
                found = replace(_as_asked(stored, tensors), reason=error.reason)
        if self.config.shadow:
            reason = found.reason or Reason.SHADOW
            found = replace(found, advertisers=(), withheld=found.advertisers, reason=reason)
        return found

    def score_user(
        self, call: Call, context: NDArray[Any], candidates: Candidates
    ) -> Steps[Ranking]:
        """Score: live, else with a stored forecast, else not at all."""
        if off := self._is_off(candidates.treatment):
            return self._unscored(call, candidates, off)
        if not candidates.ids.size:
            return self._unscored(call, candidates, None)
        tensors = {contract.USER_CONTEXT: context} | candidates.tensors()
        request = Request.of(contract.ADVERTISER_RANKING, tensors, _LIVE_PRIORS)
        reserve_s = self.config.stored_reserve_s if self._may_look_up(call) else 0.0

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            forecast = codec.decode_forecast(answer, call.request_id)
            return self._scored(call, candidates, answer, forecast)

        try:
            return (yield from ask(self.fleet, call, request, read, reserve_s=reserve_s))
        except ClientError as error:
            if not self.config.fail_open:
                raise
            stored = yield from self._stored(call)
            if stored is not None:
                stored, known = replace(stored, reason=error.reason), codec.encode_forecast(stored)
                return (yield from self.score_forecast(call, stored, known, candidates))
            return self._unscored(call, candidates, error.reason)

    def score_forecast(
        self,
        call: Call,
        forecast: Forecast,
        known: Mapping[str, NDArray[Any]],
        candidates: Candidates,
    ) -> Steps[Ranking]:
        """Score with a forecast at hand, the caller's or a stored one, and its tensors."""
        if off := self._is_off(candidates.treatment):
            return self._unscored(call, candidates, off)
        if not candidates.ids.size or forecast.source is Source.NONE:
            return self._unscored(call, candidates, forecast.reason)
        tensors = dict(known) | candidates.tensors()
        request = Request.of(contract.PRIOR_HEAD, tensors, _PRIORS)
        bundle_id = forecast.bundle_id

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            found = codec.decode_bundle_id(answer)
            if bundle_id and found != bundle_id:
                raise OtherBundleError(f"the forecast is bundle {bundle_id}'s, this is {found}")
            return self._scored(call, candidates, answer, forecast)

        try:
            return (yield from ask(self.fleet, call, request, read, bundle_id=bundle_id))
        except ClientError as error:
            if not self.config.fail_open:
                raise
            return self._unscored(call, candidates, error.reason)

    def _stored(self, call: Call) -> Steps[Forecast | None]:
        if not self._may_look_up(call) or call.user_id is None:
            return None
        found = yield Lookup(call.user_id)
        if not isinstance(found, Forecast) or not found.advertisers:
            return None
        if found.age_s is not None and found.age_s > self.config.stored_max_age_s:
            return None
        try:
            codec.encode_forecast(found)
        except InvalidArgumentError:
            _log.warning("adprior: a stored forecast is malformed, and not used")
            return None
        return replace(found, request_id=call.request_id)

    def _may_look_up(self, call: Call) -> bool:
        return self._has_stored and call.user_id is not None

    def _is_off(self, treatment: bool) -> Reason | None:
        _check_flag(treatment)
        if self._is_killed():
            return Reason.KILL_SWITCH
        return None if treatment else Reason.CONTROL

    def _is_killed(self) -> bool:
        path = self.config.kill_switch_file
        if path is not None and os.path.exists(path):  # noqa: PTH110  twice as fast
            return True
        try:
            return self._kill_switch is not None and bool(self._kill_switch())
        except Exception as error:  # noqa: BLE001  the caller's own code
            _log.warning("adprior: the kill switch failed (%s): taken as on", type(error).__name__)
            return True

    def _scored(
        self,
        call: Call,
        candidates: Candidates,
        answer: Mapping[str, NDArray[Any]],
        forecast: Forecast,
    ) -> Ranking:
        priors = codec.decode_priors(candidates.sent, answer)
        adjusted = candidates.base + priors.adjustments
        shadow = self.config.shadow or bool(forecast.withheld)
        return Ranking(
            logits=candidates.base if shadow else adjusted,
            advertiser_ids=candidates.ids,
            base_logits=candidates.base,
            adjusted_logits=adjusted,
            log_probs=priors.log_probs,
            statuses=priors.statuses,
            forecast=forecast,
            bundle_id=priors.bundle_id,
            source=forecast.source,
            age_s=forecast.age_s,
            reason=Reason.SHADOW if shadow else _reason_of(forecast),
            request_id=call.request_id,
            treatment=candidates.treatment,
            applied=not shadow,
        )

    def _unscored(self, call: Call, candidates: Candidates, reason: Reason | None) -> Ranking:
        count = candidates.ids.size
        return Ranking(
            logits=candidates.base,
            advertiser_ids=candidates.ids,
            base_logits=candidates.base,
            adjusted_logits=candidates.base,
            log_probs=np.full(count, np.nan, dtype=np.float32),
            statuses=np.full(count, _NO_ANSWER, dtype=np.uint8),
            forecast=None,
            bundle_id="",
            source=Source.NONE,
            age_s=None,
            reason=reason,
            request_id=call.request_id,
            treatment=candidates.treatment,
            applied=False,
        )


def _as_asked(stored: Forecast, tensors: Mapping[str, NDArray[Any]]) -> Forecast:
    """Return a stored forecast without excluded advertisers, and not longer than was asked for."""
    excluded = set(tensors.get(contract.EXCLUDED_ADVERTISER_IDS, np.zeros(0)).tolist())
    eligible = [item for item in stored.advertisers if item.advertiser_id not in excluded]
    limit = tensors.get(contract.TOP_K)
    kept = tuple(eligible if limit is None else eligible[: int(limit[0])])
    left_out = sum(item.probability for item in stored.advertisers)
    left_out -= sum(item.probability for item in kept)
    return replace(
        stored, advertisers=kept, missing_mass=min(max(stored.missing_mass + left_out, 0.0), 1.0)
    )


def _reason_of(forecast: Forecast) -> Reason | None:
    """A stored forecast's reason holds for its ranking; that of a shadow forecast does not."""
    return None if forecast.reason is Reason.SHADOW else forecast.reason


def _check_flag(treatment: Any) -> None:
    if not isinstance(treatment, bool):
        raise InvalidArgumentError(
            f"treatment: found {type(treatment).__name__}, expected True or False"
        )
