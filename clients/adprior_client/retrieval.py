"""Retrieval: which advertisers is this user likely to act on?

A reader starts here. ``USER_CONTEXT`` passes six modules from `RetrievalClient.forecast` to the
wire, in this order (`RankingClient.score` goes the same way, through `ranking` and
`_call/scoring`)::

    retrieval               forecast: the arguments become a `ForecastRequest`
    _call/forecasting       Forecasting.of: the request is checked and encoded
    user_context            user_to_json: the user becomes JSON, checked
    _call/blocking_driver   _ask: the call begins (`asyncio_driver` for asyncio)
    _call/forecasting       steps: live, else stored, else empty
    _call/wire              Request.of: the JSON becomes a tensor of a gRPC request
    _call/attempts          ask: the user's server is chosen, then the others
    _call/blocking_driver   _attempt: the request is sent

`_call/decoding` reads the answer. Without a user id, the JSON also chooses the server
(`_call/server_choice`).
"""

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
    """Forecasts the advertisers that users are likely to act on.

    A context manager, which threads may share. Channels open at the first call. Closing the client
    cancels the calls under way.

    Args:
        config: The settings, or a server's ``HOST:PORT`` for the defaults.
        stored: Where to find a stored forecast if the live answer fails; asked in a thread.
        kill_switch: Called at each call; while it returns True, nothing is sent and nothing is
            applied. Like ``metadata``, it must be quick: nothing interrupts it.
        metadata: Called at each call; returns metadata to add to ``config.metadata``, such as
            a token that rotates.

    Raises:
        InvalidArgumentError: A setting is impossible, or a certificate file is unreadable.
    """

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
        interest_k: int | None = None,
    ) -> Forecast:
        """Return the most probable advertisers for ``user``, most probable first.

        Args:
            user: The user, or their context as a dict or as JSON bytes.
            k: Number of advertisers, 1 to 1,000. Omit it if you will rank with the forecast: the
                head expects the bundle's default length. A small catalogue returns fewer.
            user_id: Keeps the user on one server, and finds their stored forecast.
            excluded_advertiser_ids: Advertisers to leave out (frequency caps, blocks).
            treatment: False for a user of the control group: nothing is sent, and the forecast is
                empty.
            deadline_s: Deadline of this call; the configuration's by default.
            request_id: Id of this call; random by default.
            interest_k: Number of interests to forecast as well, 1 to 1,000; none by default. A
                bundle without interests, and a stored forecast, have none.

        Returns:
            The live forecast; or, with a ``reason``, a stored or an empty one.

        Raises:
            InvalidArgumentError: An argument is wrong; nothing was sent.
            ClientError: The server failed, and ``ClientConfig.fail_open`` is off.
        """
        request = ForecastRequest(
            user=user,
            k=k,
            user_id=user_id,
            excluded_advertiser_ids=excluded_advertiser_ids,
            treatment=treatment,
            interest_k=interest_k,
        )
        return self._ask(Forecasting.of(request), deadline_s, request_id)

    def forecast_many(
        self,
        requests: Iterable[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """Forecast for many users; results are in the order of the requests.

        A request is taken from ``requests`` when one of ``max_concurrency`` calls is free, so a
        generator stays only a few requests ahead of the calls.

        Raises:
            InvalidArgumentError: A request is wrong; no later request is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """
        return self._ask_many(Forecasting.of, requests, max_concurrency, deadline_s)


class AsyncRetrievalClient(AsyncioClient):
    """`RetrievalClient` for asyncio: an asynchronous context manager, for one event loop.

    Cancelling the task that awaits a call cancels the call at the server too. Fork the process
    before the first call, or after closing.
    """

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
        interest_k: int | None = None,
    ) -> Forecast:
        """See `RetrievalClient.forecast`."""
        request = ForecastRequest(
            user=user,
            k=k,
            user_id=user_id,
            excluded_advertiser_ids=excluded_advertiser_ids,
            treatment=treatment,
            interest_k=interest_k,
        )
        return await self._ask(Forecasting.of(request), deadline_s, request_id)

    async def forecast_many(
        self,
        requests: Iterable[ForecastRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Forecast]:
        """See `RetrievalClient.forecast_many`."""
        return await self._ask_many(Forecasting.of, requests, max_concurrency, deadline_s)
