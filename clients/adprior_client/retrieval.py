"""Retrieval: which advertisers is this user likely to act on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adprior_client import codec
from adprior_client._asyncio import AsyncioClient
from adprior_client._blocking import BlockingClient
from adprior_client._calls import Call, Steps
from adprior_client._core import Core
from adprior_client.results import Forecast
from adprior_client.types import ForecastRequest, User, UserId
from adprior_runtime import contract

__all__ = ["AsyncRetrievalClient", "RetrievalClient"]


class RetrievalClient(BlockingClient):
    """Forecasts advertisers; see `BlockingClient` for how it is made."""

    def forecast(
        self,
        user: User | Mapping[str, Any] | bytes,
        k: int | None = None,
        *,
        user_id: UserId | None = None,
        excluded_advertiser_ids: Sequence[int] = (),
        treatment: bool = True,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Forecast:
        """Return the most probable advertisers for ``user``, most probable first.

        Args:
            user: The user, or their context as a JSON object (a dict) or as JSON bytes.
            k: How many, 1 to ``contract.MAX_TOP_K``, or as many as the server's bundle says, which
                is what its prior head was fitted with; fewer come when the catalogue has fewer.
            user_id: Keeps the user on one server, and finds their stored forecast.
            excluded_advertiser_ids: Advertisers that must not come out (frequency caps, blocks); of
                a stored forecast they are left out here.
            treatment: False asks nothing, and gives an empty forecast: a user of a control group.
            deadline_s: Of this call, the configuration's where none is given.
            request_id: Of this call, a random one where none is given.

        Returns:
            The live forecast, or, with a ``reason``, a stored or an empty one.

        Raises:
            InvalidArgumentError: An argument is wrong; found before anything is sent.
            ClientError: The server failed, and ``ClientConfig.fail_open`` is off.
        """
        request = ForecastRequest(
            user=user,
            k=k,
            user_id=user_id,
            excluded_advertiser_ids=excluded_advertiser_ids,
            treatment=treatment,
        )
        call, steps = _begin(self._core, request, deadline_s, request_id)
        return self._run("forecast", call, steps)

    def forecast_many(
        self,
        requests: Sequence[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """Forecast for many users, so many at a time; the same order comes back.

        Raises:
            InvalidArgumentError: An argument of any is wrong; found before anything is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """
        _check_many(self._core, requests, deadline_s)

        def ask(request: ForecastRequest) -> Forecast:
            call, steps = _begin(self._core, request, deadline_s, None)
            return self._run("forecast", call, steps)

        return self._run_many(ask, requests, max_concurrency)


class AsyncRetrievalClient(AsyncioClient):
    """Forecasts advertisers, for asyncio; see `AsyncioClient` for how it is made."""

    async def forecast(
        self,
        user: User | Mapping[str, Any] | bytes,
        k: int | None = None,
        *,
        user_id: UserId | None = None,
        excluded_advertiser_ids: Sequence[int] = (),
        treatment: bool = True,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Forecast:
        """See `RetrievalClient.forecast`."""
        request = ForecastRequest(
            user=user,
            k=k,
            user_id=user_id,
            excluded_advertiser_ids=excluded_advertiser_ids,
            treatment=treatment,
        )
        call, steps = _begin(self._core, request, deadline_s, request_id)
        return await self._run("forecast", call, steps)

    async def forecast_many(
        self,
        requests: Sequence[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """See `RetrievalClient.forecast_many`."""
        _check_many(self._core, requests, deadline_s)

        async def ask(request: ForecastRequest) -> Forecast:
            call, steps = _begin(self._core, request, deadline_s, None)
            return await self._run("forecast", call, steps)

        return await self._run_many(ask, requests, max_concurrency)


def _begin(
    core: Core, request: ForecastRequest, deadline_s: float | None, request_id: str | None
) -> tuple[Call, Steps[Forecast]]:
    """Check a request, and return the call with its steps."""
    tensors = {contract.USER_CONTEXT: codec.encode_user(request.user)}
    if request.k is not None:
        tensors[contract.TOP_K] = codec.encode_top_k(request.k)
    excluded = codec.encode_ids(request.excluded_advertiser_ids, "excluded_advertiser_ids")
    if excluded.size:
        tensors[contract.EXCLUDED_ADVERTISER_IDS] = excluded
    key = tensors[contract.USER_CONTEXT][0]
    call = core.begin(key, request.user_id, deadline_s, request_id)
    return call, core.forecast(call, tensors, treatment=request.treatment)


def _check_many(core: Core, requests: Sequence[ForecastRequest], deadline_s: float | None) -> None:
    for request in requests:
        _begin(core, request, deadline_s, None)
