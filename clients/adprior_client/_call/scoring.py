"""One ranking: with a live forecast, the caller's or a stored one; else the base logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from adprior_client import encoding
from adprior_client._call import decoding
from adprior_client._call.attempts import ask
from adprior_client._call.call import Call, Steps, Work
from adprior_client._call.fallback import find_stored, rank_by_base_logits, stored_reserve_s
from adprior_client._call.wire import Request
from adprior_client.checks import check_treatment
from adprior_client.errors import ClientError, InvalidArgumentError, OtherBundleError
from adprior_client.requests import ScoreRequest
from adprior_client.results import Forecast, Ranking
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scoring(Work[Ranking]):
    """A checked request for one ranking.

    Attributes:
        forecast: The caller's forecast; None asks for a live one.
        subject: The tensors of the user, or of that forecast.
        advertiser_ids: int64 [n], the candidates.
        base_logits: float64 [n], as the caller gave them.
        sent_logits: float32 [n], as they are sent.
    """

    name: ClassVar[str] = "score"

    forecast: Forecast | None
    subject: Mapping[str, NDArray[Any]] = field(repr=False)
    advertiser_ids: NDArray[np.int64]
    base_logits: NDArray[np.float64]
    sent_logits: NDArray[np.float32]

    @classmethod
    def of(cls, request: ScoreRequest) -> Self:
        """Check and encode a request; raises InvalidArgumentError."""
        if not isinstance(request, ScoreRequest):
            raise InvalidArgumentError(
                f"requests: found {type(request).__name__}, expected ScoreRequest"
            )
        check_treatment(request.treatment)
        ids = encoding.encode_ids(request.candidates, "candidates", contract.MAX_CANDIDATES)
        base, sent = encoding.encode_logits(request.base_logits, "base_logits")
        if ids.size != sent.size:
            raise InvalidArgumentError(
                f"base_logits: found {sent.size}, expected {ids.size}, one for each candidate"
            )
        if isinstance(request.subject, Forecast):
            forecast, subject = request.subject, encoding.encode_forecast(request.subject)
            key = forecast.request_id.encode()
        else:
            forecast, key = None, user_to_json(request.subject)
            subject = {contract.USER_CONTEXT: np.array([key], dtype=np.object_)}
        return cls(
            key=key,
            user_id=request.user_id,
            treatment=request.treatment,
            forecast=forecast,
            subject=subject,
            advertiser_ids=ids,
            base_logits=base,
            sent_logits=sent,
        )

    def steps(self, call: Call) -> Steps[Ranking]:
        """See `Work.steps`."""
        if call.held_for:
            return self._fall_back(call, call.held_for)
        if not self.advertiser_ids.size:
            return self._fall_back(call, None)
        try:
            if self.forecast is None:
                return (yield from self._rank_live(call))
            if self.forecast.source is Source.NONE:
                return self._fall_back(call, self.forecast.reason)
            given = self.forecast
            if given.source is Source.LIVE:  # it was live when the caller received it
                given = replace(given, source=Source.CALLER)
            return (yield from self._rank_with(given, self.subject, call))
        except ClientError as error:
            if not call.config.fail_open:
                raise
            return self._fall_back(call, error.reason)

    def _rank_live(self, call: Call) -> Steps[Ranking]:
        request = self._request(contract.ADVERTISER_RANKING, self.subject, _LIVE_OUTPUTS, call)

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            return self._read(answer, decoding.decode_forecast(answer, call.request_id), call)

        try:
            return (yield from ask(call, request, read, reserve_s=stored_reserve_s(call)))
        except ClientError as error:
            if not call.config.fail_open:
                raise
            stored = yield from find_stored(call, error.reason)
            if stored is None:
                raise
            return (yield from self._rank_with(stored, encoding.encode_forecast(stored), call))

    def _rank_with(
        self, forecast: Forecast, subject: Mapping[str, NDArray[Any]], call: Call
    ) -> Steps[Ranking]:
        """Rank with an available forecast: only the head runs."""
        request = self._request(contract.PRIOR_HEAD, subject, _OUTPUTS, call)
        bundle_id = forecast.bundle_id

        def read(answer: Mapping[str, NDArray[Any]]) -> Ranking:
            found = decoding.decode_bundle_id(answer)
            if bundle_id and found != bundle_id:
                raise OtherBundleError(
                    f"the forecast is from bundle {bundle_id}, the server has bundle {found}"
                )
            return self._read(answer, forecast, call)

        return (yield from ask(call, request, read, bundle_id=bundle_id))

    def _request(
        self,
        model: str,
        subject: Mapping[str, NDArray[Any]],
        outputs: tuple[str, ...],
        call: Call,
    ) -> Request:
        candidates: dict[str, NDArray[Any]] = {
            contract.CANDIDATE_ADVERTISER_IDS: self.advertiser_ids,
            contract.BASE_LOGITS: self.sent_logits,
        }
        priority = call.config.level or contract.Priority.RANKING
        return Request.of(model, {**subject, **candidates}, outputs, priority)

    def _read(self, answer: Mapping[str, NDArray[Any]], forecast: Forecast, call: Call) -> Ranking:
        priors = decoding.decode_priors(self.sent_logits.size, answer)
        adjusted = self.base_logits + priors.adjustments
        shadow = call.config.shadow or bool(forecast.withheld)
        reason = None if forecast.reason is Reason.SHADOW else forecast.reason
        return Ranking(
            logits=self.base_logits if shadow else adjusted,
            advertiser_ids=self.advertiser_ids,
            base_logits=self.base_logits,
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

    def _fall_back(self, call: Call, reason: Reason | None) -> Ranking:
        return rank_by_base_logits(
            self.advertiser_ids, self.base_logits, call, reason, treatment=self.treatment
        )
