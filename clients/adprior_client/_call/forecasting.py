"""How a forecast is come by: live, else stored, else none."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Forecasting:
    """One forecast asked for, checked.

    Attributes:
        tensors: What is sent.
        treatment: Whether the user is treated.
    """

    tensors: Mapping[str, NDArray[Any]]
    treatment: bool

    @classmethod
    def of(cls, request: ForecastRequest) -> Forecasting:
        """Check what a caller gives.

        Raises:
            InvalidArgumentError: A value is impossible.
        """
        if not isinstance(request, ForecastRequest):
            raise InvalidArgumentError(
                f"requests: found {type(request).__name__}, expected ForecastRequest"
            )
        check_flag(request.treatment)
        tensors: dict[str, NDArray[Any]] = {
            contract.USER_CONTEXT: np.array([user_to_json(request.user)], dtype=np.object_)
        }
        if request.k is not None:
            tensors[contract.TOP_K] = encoding.encode_top_k(request.k)
        excluded = encoding.encode_ids(
            request.excluded_advertiser_ids, "excluded_advertiser_ids", contract.MAX_EXCLUDED
        )
        if excluded.size:
            tensors[contract.EXCLUDED_ADVERTISER_IDS] = excluded
        return cls(tensors, request.treatment)

    @property
    def key(self) -> bytes:
        """What chooses a server where no user id does."""
        key: bytes = self.tensors[contract.USER_CONTEXT][0]
        return key

    def steps(self, core: Core, call: Call) -> Steps[Forecast]:
        """Ask."""
        if held := core.reason_to_hold(treatment=self.treatment):
            return Forecast.none(held, call.request_id)
        priority = core.config.level or contract.Priority.RETRIEVAL
        request = Request.of(contract.ADVERTISER_RETRIEVAL, self.tensors, _OUTPUTS, priority)
        try:
            found = yield from ask(
                core.fleet,
                core.config,
                call,
                request,
                lambda answer: decoding.decode_forecast(answer, call.request_id, self.tensors),
            )
        except ClientError as error:
            if not core.config.fail_open:
                raise
            stored = yield from core.stored(call)
            found = Forecast.none(error.reason, call.request_id)
            if stored is not None:
                found = replace(self._cut(stored), reason=error.reason)
        if core.config.shadow:
            reason = found.reason or Reason.SHADOW
            found = replace(found, advertisers=(), withheld=found.advertisers, reason=reason)
        return found

    def _cut(self, stored: Forecast) -> Forecast:
        """Return a stored forecast without what is excluded, and not longer than asked for."""
        none = np.zeros(0, dtype=np.int64)
        excluded = set(self.tensors.get(contract.EXCLUDED_ADVERTISER_IDS, none).tolist())
        eligible = [item for item in stored.advertisers if item.advertiser_id not in excluded]
        limit = self.tensors.get(contract.TOP_K)
        kept = tuple(eligible if limit is None else eligible[: int(limit[0])])
        left_out = sum(item.probability for item in stored.advertisers)
        left_out -= sum(item.probability for item in kept)
        missing = min(max(stored.missing_mass + left_out, 0.0), 1.0)
        return replace(stored, advertisers=kept, missing_mass=missing)
