"""How candidates are scored: live, else with a stored forecast, else not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client._call import decoding, encoding
from adprior_client._call.attempts import Call, Steps, ask
from adprior_client._call.core import Core, check_flag
from adprior_client._call.wire import Request
from adprior_client.errors import ClientError, InvalidArgumentError, OtherBundleError
from adprior_client.requests import ScoreRequest
from adprior_client.results import NO_ANSWER, Forecast, Ranking
from adprior_client.types import Reason, Source
from adprior_client.user_context import user_to_json
from adprior_runtime import contract

_OUTPUTS: Final = (
    contract.ADJUSTMENTS,
    contract.CANDIDATE_LOG_PROBS,
    contract.CANDIDATE_STATUS,
    contract.ADJUSTMENT_LIMIT,
    contract.BUNDLE_ID,
    contract.ANSWER_VERSION,
)
_LIVE_OUTPUTS: Final = (
    *_OUTPUTS,
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.EXACT,
    contract.MISSING_MASS,
)


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """One ranking asked for, checked.

    Attributes:
        subject: ``USER_CONTEXT``, or the forecast at hand.
        known: The tensors of that.
        ids: int64 [n], the candidates.
        base: float64 [n], their logits as the caller gave them.
        sent: float32 [n], as they are sent.
        treatment: Whether the user is treated.
    """

    subject: bytes | Forecast
    known: Mapping[str, NDArray[Any]]
    ids: NDArray[np.int64]
    base: NDArray[np.float64]
    sent: NDArray[np.float32]
    treatment: bool

    @classmethod
    def of(cls, request: ScoreRequest) -> Scoring:
        """Check what a caller gives.

        Raises:
            InvalidArgumentError: A value is impossible, or the lengths differ.
        """
        if not isinstance(request, ScoreRequest):
            raise InvalidArgumentError(
                f"requests: found {type(request).__name__}, expected ScoreRequest"
            )
        check_flag(request.treatment)
        ids = encoding.encode_ids(request.candidates, "candidates", contract.MAX_CANDIDATES)
        base, sent = encoding.encode_logits(request.base_logits, "base_logits")
        if ids.size != sent.size:
            raise InvalidArgumentError(
                f"base_logits: found {sent.size}, expected {ids.size}, one for each candidate"
            )
        subject = request.subject
        if isinstance(subject, Forecast):
            known = encoding.encode_forecast(subject)
            return cls(subject, known, ids, base, sent, request.treatment)
        context = user_to_json(subject)
        known = {contract.USER_CONTEXT: np.array([context], dtype=np.object_)}
        return cls(context, known, ids, base, sent, request.treatment)

    @property
    def key(self) -> bytes:
        """What chooses a server where no user id does."""
        subject = self.subject
        return subject.request_id.encode() if isinstance(subject, Forecast) else subject

    def steps(self, core: Core, call: Call) -> Steps[Ranking]:
        """Ask."""
        if held := core.reason_to_hold(treatment=self.treatment):
            return self._unscored(call, held)
        if not self.ids.size:
            return self._unscored(call, None)
        try:
            if isinstance(self.subject, Forecast):
                if self.subject.source is Source.NONE:
                    return self._unscored(call, self.subject.reason)
                given = self.subject
                if given.source is Source.LIVE:  # it was, when the caller got it
                    given = replace(given, source=Source.CALLER)
                return (yield from self._with_forecast(core, call, given, self.known))
            return (yield from self._live(core, call))
        except ClientError as error:
            if not core.config.fail_open:
                raise
            return self._unscored(call, error.reason)

    def _live(self, core: Core, call: Call) -> Steps[Ranking]:
        priority = core.config.level or contract.Priority.RANKING
        tensors = self._tensors(self.known)
        request = Request.of(contract.ADVERTISER_RANKING, tensors, _LIVE_OUTPUTS, priority)

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            forecast = decoding.decode_forecast(answer, call.request_id)
            return self._scored(core, call, answer, forecast)

        try:
            return (
                yield from ask(
                    core.fleet, core.config, call, request, read, reserve_s=core.reserve_s(call)
                )
            )
        except ClientError as error:
            stored = (yield from core.stored(call)) if core.config.fail_open else None
            if stored is None:
                raise
            known = encoding.encode_forecast(stored)
            stored = replace(stored, reason=error.reason)
            return (yield from self._with_forecast(core, call, stored, known))

    def _with_forecast(
        self, core: Core, call: Call, forecast: Forecast, known: Mapping[str, NDArray[Any]]
    ) -> Steps[Ranking]:
        priority = core.config.level or contract.Priority.RANKING
        request = Request.of(contract.PRIOR_HEAD, self._tensors(known), _OUTPUTS, priority)
        bundle_id = forecast.bundle_id

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            found = decoding.decode_bundle_id(answer)
            if bundle_id and found != bundle_id:
                raise OtherBundleError(f"the forecast is bundle {bundle_id}'s, this is {found}")
            return self._scored(core, call, answer, forecast)

        return (yield from ask(core.fleet, core.config, call, request, read, bundle_id=bundle_id))

    def _tensors(self, known: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(known) | {
            contract.CANDIDATE_ADVERTISER_IDS: self.ids,
            contract.BASE_LOGITS: self.sent,
        }

    def _scored(
        self, core: Core, call: Call, answer: Mapping[str, NDArray[Any]], forecast: Forecast
    ) -> Ranking:
        priors = decoding.decode_priors(self.sent.size, answer)
        adjusted = self.base + priors.adjustments
        shadow = core.config.shadow or bool(forecast.withheld)
        reason = None if forecast.reason is Reason.SHADOW else forecast.reason
        return Ranking(
            logits=self.base if shadow else adjusted,
            advertiser_ids=self.ids,
            base_logits=self.base,
            adjusted_logits=adjusted,
            log_probs=priors.log_probs,
            statuses=priors.statuses,
            forecast=forecast,
            bundle_id=priors.bundle_id,
            source=forecast.source,
            age_s=forecast.age_s,
            reason=Reason.SHADOW if shadow else reason,
            request_id=call.request_id,
            treatment=self.treatment,
            applied=not shadow,
            has_fitted_head=priors.has_fitted_head,
        )

    def _unscored(self, call: Call, reason: Reason | None) -> Ranking:
        return Ranking(
            logits=self.base,
            advertiser_ids=self.ids,
            base_logits=self.base,
            adjusted_logits=self.base,
            log_probs=np.full(self.ids.size, np.nan, dtype=np.float32),
            statuses=np.full(self.ids.size, NO_ANSWER, dtype=np.uint8),
            forecast=None,
            bundle_id="",
            source=Source.NONE,
            age_s=None,
            reason=reason,
            request_id=call.request_id,
            treatment=self.treatment,
            applied=False,
        )
