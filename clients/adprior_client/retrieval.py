"""Retrieval: which advertisers is this user likely to act on?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adprior_client._call.asyncio_driver import AsyncioClient
from adprior_client._call.blocking_driver import BlockingClient
from adprior_client._call.forecasting import Forecasting
from adprior_client.requests import ForecastRequest
from adprior_client.results import Forecast
from adprior_client.types import Ids, User, UserId


class RetrievalClient(BlockingClient):
    """Forecasts advertisers; see `Client` for how it is made."""

    def forecast(
        self,
        user: User | Mapping[str, Any] | bytes,
        k: int | None = None,
        *,
        user_id: UserId | None = None,
        excluded_advertiser_ids: Ids = (),
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
        work = Forecasting.of(request)
        return self._run("forecast", work, self._begin(work, user_id, deadline_s, request_id))

    def forecast_many(
        self,
        requests: Iterable[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """Forecast for many users, so many at a time; the same order comes back.

        A request is taken from ``requests`` and encoded when there is a place for it, so that a
        generator of them is never far ahead of the calls.

        Raises:
            InvalidArgumentError: An argument of one is wrong; no request after it is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """

        def ask(request: ForecastRequest) -> Forecast:
            work = Forecasting.of(request)
            return self._run("forecast", work, self._begin(work, request.user_id, deadline_s))

        return self._run_many(ask, requests, max_concurrency)


class AsyncRetrievalClient(AsyncioClient):
    """Forecasts advertisers, for asyncio; see `Client` for how it is made."""

    async def forecast(
        self,
        user: User | Mapping[str, Any] | bytes,
        k: int | None = None,
        *,
        user_id: UserId | None = None,
        excluded_advertiser_ids: Ids = (),
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
        work = Forecasting.of(request)
        return await self._run("forecast", work, self._begin(work, user_id, deadline_s, request_id))

    async def forecast_many(
        self,
        requests: Iterable[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """See `RetrievalClient.forecast_many`."""

        async def ask(request: ForecastRequest) -> Forecast:
            work = Forecasting.of(request)
            return await self._run("forecast", work, self._begin(work, request.user_id, deadline_s))

        return await self._run_many(ask, requests, max_concurrency)
