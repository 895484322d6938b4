"""The driver of `AsyncRetrievalClient` and `AsyncRankingClient`: calls for asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Self, TypeVar

from tritonclient.grpc.aio import InferenceServerClient

from adprior_client._call.call import Attempt, Lookup, Outcome, Pause, Step, Wait, Work
from adprior_client._call.client import HEALTH_CHECK_S, LOOKUP_THREADS, Client, Headers
from adprior_client._call.server_choice import Server
from adprior_client.checks import check_concurrency
from adprior_client.errors import CancelledError, ClientError, InvalidArgumentError
from adprior_client.results import Forecast, Ranking

_Request = TypeVar("_Request")
_Result = TypeVar("_Result", Forecast, Ranking)
_log = logging.getLogger("adprior_client")


class AsyncioClient(Client):
    """A client with its channels: an asynchronous context manager, for one event loop.

    Cancelling the task that awaits a call, or closing the client, cancels the call at the server
    too. Channels open at the first call: fork a process before that, or after closing.
    """

    _is_lost: ClassVar[bool] = False
    """Whether this process was forked while such a client was open: gRPC would crash here."""
    _closed = False

    def _begin_anew(self) -> None:
        """See `Client._begin_anew`."""
        if self._channels:
            AsyncioClient._is_lost = True
        super()._begin_anew()

    def _prepare(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._lookups: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels: calls under way, and later ones, are cancelled."""
        self._closed = True
        self._discovery.close()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()
        lookups, self._lookups = self._lookups, None
        if lookups is not None:
            lookups.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self, work: Work[_Result], deadline_s: float | None, request_id: str | None = None
    ) -> _Result:
        """Run a call to its end."""
        call = self._begin(work, deadline_s, request_id)
        self._check_place()
        self._discovery.start()
        self._start_watching()
        with self._run(work, call) as (run, headers):
            while run.step is not None:
                run.resume(await self._do(run.step, headers))
        return run.result

    async def _ask_many(
        self,
        check: Callable[[_Request], Work[_Result]],
        requests: Iterable[_Request],
        max_concurrency: int,
        deadline_s: float | None,
    ) -> list[_Result]:
        """Run a call for each request until one fails; take a request when a call is free."""
        places, failed = asyncio.Semaphore(check_concurrency(max_concurrency)), asyncio.Event()

        async def ask_one(request: _Request) -> _Result:
            try:
                return await self._ask(check(request), deadline_s)
            except BaseException:
                failed.set()
                raise
            finally:
                places.release()

        tasks = []
        remaining = iter(requests)
        try:
            while await places.acquire() and not failed.is_set():
                try:
                    request = next(remaining)
                except StopIteration:
                    break
                tasks.append(asyncio.create_task(ask_one(request)))
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    def _check_place(self) -> None:
        """Refuse another event loop, and a process in which gRPC would crash."""
        if self._is_lost:
            raise InvalidArgumentError(
                "this process was forked while an asyncio client was open, which gRPC does not "
                "survive: fork before the first call or after closing, or spawn the process"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidArgumentError(
                "this client belongs to another event loop: make one in each"
            )

    async def _do(self, step: Step, headers: Headers) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Wait):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(step.answer), step.timeout_s)
            return None
        if isinstance(step, Lookup):
            return await self._look_up(step)
        return await self._attempt(step, headers)

    async def _attempt(self, attempt: Attempt, headers: Headers) -> Outcome:
        if isinstance(headers, ClientError):
            return headers
        arguments = attempt.request.arguments(attempt.timeout_s, headers)
        try:
            channel = self._channel(attempt.server)
            return await channel.infer(**arguments, request_id=attempt.request_id)
        except asyncio.CancelledError:
            # gRPC raises it for a closed channel too; only a cancelled task is passed on.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            return CancelledError(f"{attempt.request.model}: the client was closed")
        except Exception as error:  # noqa: BLE001  every error of the wire has a meaning
            return self._failure_of(attempt, error)

    async def _look_up(self, lookup: Lookup) -> Outcome:
        if self._stored is None:
            return None
        try:
            if self._lookups is None:  # the loop's own threads belong to the service
                self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, "adprior-stored")
            context = contextvars.copy_context()
            find = functools.partial(context.run, self._stored.find, lookup.user_id)
            future = asyncio.get_running_loop().run_in_executor(self._lookups, find)
            # A late lookup is cancelled: lookups must not pile up.
            return await asyncio.wait_for(future, lookup.timeout_s)
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _channel(self, server: Server) -> Any:
        if self._closed:
            raise ValueError("closed channel")
        key = self._channel_key(server)
        if key not in self._channels:
            self._channels[key] = InferenceServerClient(server.url, **self._channel_options(key))
        return self._channels[key]

    def _drop_channels(self) -> None:
        loop = self._loop
        with suppress(RuntimeError):  # the loop is closed
            if loop is not None:  # its channels are closed in its own thread
                loop.call_soon_threadsafe(self._drop_unlisted)

    def _start_watching(self) -> None:
        if self._watcher is not None or self._config.health_interval_s <= 0 or self._closed:
            return
        # An empty context keeps health checks out of callers' traces.
        self._watcher = asyncio.create_task(
            self._watch(), name="adprior-health", context=contextvars.Context()
        )

    async def _watch(self) -> None:
        """Check every server's readiness until the client is closed."""
        while True:
            await asyncio.sleep(self._config.health_interval_s)
            headers = self._headers()
            if not isinstance(headers, ClientError):
                servers = self._fleet.servers
                await asyncio.gather(*(self._check(server, headers) for server in servers))

    async def _check(self, server: Server, headers: dict[str, str]) -> None:
        cause = ""
        try:
            is_ready = await self._channel(server).is_server_ready(
                headers=headers, client_timeout=HEALTH_CHECK_S
            )
        except Exception as error:  # noqa: BLE001  it is not ready, whatever the cause
            is_ready, cause = False, self._cause_of(server, error)
        server.check(is_ready=bool(is_ready), cause=cause)
