"""One forecast: the live one; else the user's stored one; else an empty one."""

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
from adprior_client._call.fallback import find_stored, trim
from adprior_client._call.wire import Request
from adprior_client.checks import check_treatment
from adprior_client.errors import ClientError, InvalidArgumentError
from adprior_client.requests import ForecastRequest
from adprior_client.results import Forecast
from adprior_client.types import Reason
from adprior_client.user_context import user_to_json
from adprior_runtime import contract

_OUTPUTS: Final = (
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.ADVERTISER_NAMES,
    contract.EXACT,
    contract.MISSING_MASS,
    contract.BUNDLE_ID,
    contract.ANSWER_VERSION,
)
_INTEREST_OUTPUTS: Final = (
    contract.INTEREST_IDS,
    contract.INTEREST_LOG_PROBS,
    contract.INTEREST_NAMES,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasting(Work[Forecast]):
    """A checked request for one forecast; ``inputs`` are the tensors to send."""

    name: ClassVar[str] = "forecast"

    inputs: Mapping[str, NDArray[Any]] = field(repr=False)

    @classmethod
    def of(cls, request: ForecastRequest) -> Self:
        """Check and encode a request; raises InvalidArgumentError."""
        if not isinstance(request, ForecastRequest):
            raise InvalidArgumentError(
                f"requests: found {type(request).__name__}, expected ForecastRequest"
            )
        check_treatment(request.treatment)
        context = user_to_json(request.user)
        inputs: dict[str, NDArray[Any]] = {
            contract.USER_CONTEXT: np.array([context], dtype=np.object_)
        }
        if request.k is not None:
            inputs[contract.TOP_K] = encoding.encode_top_k(request.k)
        if request.interest_k is not None:
            inputs[contract.INTEREST_TOP_K] = encoding.encode_top_k(
                request.interest_k, "interest_k"
            )
        excluded = encoding.encode_ids(
            request.excluded_advertiser_ids, "excluded_advertiser_ids", contract.MAX_EXCLUDED
        )
        if excluded.size:
            inputs[contract.EXCLUDED_ADVERTISER_IDS] = excluded
        return cls(key=context, user_id=request.user_id, treatment=request.treatment, inputs=inputs)

    def steps(self, call: Call) -> Steps[Forecast]:
        """See `Work.steps`."""
        if call.held_for:
            return Forecast.none(call.held_for, call.request_id)
        try:
            found = yield from self._ask_live(call)
        except ClientError as error:
            if not call.config.fail_open:
                raise
            stored = yield from find_stored(call, error.reason)
            found = self._trim(stored) if stored else Forecast.none(error.reason, call.request_id)
        if call.config.shadow:
            reason = found.reason or Reason.SHADOW
            found = replace(
                found, advertisers=(), withheld=found.advertisers, interests=(), reason=reason
            )
        return found

    def _ask_live(self, call: Call) -> Steps[Forecast]:
        priority = call.config.level or contract.Priority.RETRIEVAL
        asks_interests = contract.INTEREST_TOP_K in self.inputs
        outputs = (*_OUTPUTS, *(_INTEREST_OUTPUTS if asks_interests else ()))
        request = Request.of(contract.ADVERTISER_RETRIEVAL, self.inputs, outputs, priority)

        def read(answer: Mapping[str, NDArray[Any]]) -> Forecast:
            return decoding.decode_forecast(answer, call.request_id, self.inputs)

        return (yield from ask(call, request, read))

    def _trim(self, stored: Forecast) -> Forecast:
        excluded = self.inputs.get(contract.EXCLUDED_ADVERTISER_IDS, np.zeros(0, dtype=np.int64))
        k = self.inputs.get(contract.TOP_K)
        return trim(stored, set(excluded.tolist()), None if k is None else int(k[0]))
