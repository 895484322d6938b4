"""Calls for asyncio: the driver of `AsyncRetrievalClient` and `AsyncRankingClient`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from tritonclient.grpc.aio import InferenceServerClient

from adprior_client._calls import Attempt, Call, Lookup, Outcome, Steps
from adprior_client._core import Core
from adprior_client._fleet import Server
from adprior_client._telemetry import Telemetry, describe
from adprior_client._wire import channel_settings, error_of
from adprior_client.config import ClientConfig, check_concurrency
from adprior_client.errors import ClientError
from adprior_client.results import Forecast, Ranking
from adprior_client.sources import ForecastSource

__all__ = ["AsyncioClient"]

_Result = TypeVar("_Result", Forecast, Ranking)
_Item = TypeVar("_Item")
_log = logging.getLogger("adprior_client")
_CHECK_TIMEOUT_S = 1.0


class AsyncioClient:
    """Owns the channels to the servers; an asynchronous context manager, for one event loop.

    Cancelling the task that awaits a call cancels it at the server too.

    Args:
        config: How to behave, or a server's ``HOST:PORT`` for the defaults.
        stored: Where to look when the live answer does not come; asked in a thread.
        kill_switch: Asked at each call: while it is true, nothing is asked and nothing applied.
        metadata: Gives what to send with each call beside ``config.metadata``: tokens that rotate.

    Raises:
        InvalidArgumentError: A setting is impossible, or a certificate file unreadable.
    """

    def __init__(
        self,
        config: ClientConfig | str,
        *,
        stored: ForecastSource | None = None,
        kill_switch: Callable[[], bool] | None = None,
        metadata: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._config = ClientConfig.of(config)
        self._core = Core(self._config, has_stored=stored is not None, kill_switch=kill_switch)
        self._stored = stored
        self._metadata = metadata
        self._telemetry = Telemetry()
        self._settings = channel_settings(self._config)
        self._channels: dict[str, Any] = {}
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels: calls under way are cancelled, later ones refused."""
        self._closed = True
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def _run(self, name: str, call: Call, steps: Steps[_Result]) -> _Result:
        """Drive a call to its end."""
        if self._closed:
            raise ClientError(f"{name}: this client is closed")
        if self._watcher is None and self._config.health_interval_s > 0:
            self._watcher = asyncio.create_task(self._watch(), name="adprior-health")
        with self._telemetry.span(f"adprior.{name}", call.request_id) as span:
            try:
                step = next(steps)
                while True:
                    step = steps.send(await self._do(step))
            except StopIteration as stop:
                result: _Result = stop.value
            finally:
                steps.close()
            describe(span, result)
        return result

    async def _run_many(
        self,
        ask: Callable[[_Item], Awaitable[_Result]],
        items: Iterable[_Item],
        max_concurrency: int,
    ) -> list[_Result]:
        places = asyncio.Semaphore(check_concurrency(max_concurrency))

        async def ask_in_turn(item: _Item) -> _Result:
            async with places:
                return await ask(item)

        tasks = [asyncio.ensure_future(ask_in_turn(item)) for item in items]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def _do(self, step: Attempt | Lookup) -> Outcome:
        return await (self._look_up(step) if isinstance(step, Lookup) else self._attempt(step))

    async def _attempt(self, attempt: Attempt) -> Outcome:
        request = attempt.request
        try:
            answer: Outcome = await self._channel(attempt.server).infer(
                request.model,
                request.inputs,
                outputs=request.outputs,
                request_id=attempt.request_id,
                client_timeout=attempt.timeout_s,
                headers=self._headers(),
            )
        except Exception as error:  # noqa: BLE001  whatever comes of the wire has a meaning
            return error_of(error, request.model, attempt.server.url, attempt.timeout_s)
        return answer

    async def _look_up(self, lookup: Lookup) -> Outcome:
        try:
            if self._stored is None:
                return None
            return await asyncio.to_thread(self._stored.find, lookup.user_id)
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _headers(self) -> dict[str, str]:
        headers = dict(self._config.metadata) | self._telemetry.headers()
        return headers if self._metadata is None else headers | dict(self._metadata())

    def _channel(self, server: Server) -> Any:
        if self._closed:
            raise ValueError("closed channel")
        if server.url not in self._channels:
            self._channels[server.url] = InferenceServerClient(server.url, **self._settings)
        return self._channels[server.url]

    async def _watch(self) -> None:
        """Check every server's readiness, until the client is closed."""
        while True:
            await asyncio.sleep(self._config.health_interval_s)
            await asyncio.gather(*(self._check(server) for server in self._core.fleet.servers))

    async def _check(self, server: Server) -> None:
        try:
            is_ready = await self._channel(server).is_server_ready(
                headers=self._headers(), client_timeout=_CHECK_TIMEOUT_S
            )
        except Exception:  # noqa: BLE001  it is not ready, whatever the cause
            is_ready = False
        server.check(is_ready=bool(is_ready))
