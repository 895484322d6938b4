"""Calls for asyncio: the driver of `AsyncRetrievalClient` and `AsyncRankingClient`."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from tritonclient.grpc.aio import InferenceServerClient

from adprior_client._call.attempts import Attempt, Call, Lookup, Outcome, Pause, Step
from adprior_client._call.checks import check_concurrency
from adprior_client._call.client import (
    CHECK_TIMEOUT_S,
    LOOKUP_THREADS,
    Client,
    Headers,
    Result_co,
    Work,
)
from adprior_client._call.server_choice import Server
from adprior_client._call.telemetry import describe
from adprior_client.errors import CancelledError, ClientError, InvalidArgumentError

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")
_log = logging.getLogger("adprior_client")


class AsyncioClient(Client):
    """Owns the channels to the servers; an asynchronous context manager, for one event loop.

    Cancelling the task that awaits a call cancels it at the server too, and so does closing the
    client. Channels open at the first call: a process may be forked before that, or after closing.
    `Client` has its arguments.
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels: calls under way, and later ones, are cancelled."""
        self._closed = True
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

    async def _run(self, name: str, work: Work[Result_co], call: Call) -> Result_co:
        """Drive a call to its end."""
        self._check_place()
        if self._watcher is None and self._config.health_interval_s > 0 and not self._closed:
            # In a context of its own: it is part of no caller's trace.
            self._watcher = asyncio.create_task(
                self._watch(), name="adprior-health", context=contextvars.Context()
            )
        steps = work.steps(self._core, call)
        with self._telemetry.span(f"adprior.{name}", call.request_id) as span:
            headers = self._headers()
            try:
                step = next(steps)
                while True:
                    step = steps.send(await self._do(step, headers))
            except StopIteration as stop:
                result: Result_co = stop.value
            finally:
                steps.close()
            describe(span, result)
        return result

    async def _run_many(
        self,
        ask: Callable[[_Item], Awaitable[_Answer]],
        items: Iterable[_Item],
        max_concurrency: int,
    ) -> list[_Answer]:
        """Ask about each item, which is taken once there is a place for it, until one fails."""
        places, failed = asyncio.Semaphore(check_concurrency(max_concurrency)), asyncio.Event()

        async def ask_in_turn(item: _Item) -> _Answer:
            try:
                return await ask(item)
            except BaseException:
                failed.set()
                raise
            finally:
                places.release()

        tasks = []
        remaining = iter(items)
        try:
            while await places.acquire() and not failed.is_set():
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                tasks.append(asyncio.create_task(ask_in_turn(item)))
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    def _check_place(self) -> None:
        """Refuse another event loop, and a process in which gRPC's would not work.

        Raises:
            InvalidArgumentError: It is the wrong place for this client.
        """
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
        if isinstance(step, Lookup):
            return await self._look_up(step)
        return await self._attempt(step, headers)

    async def _attempt(self, attempt: Attempt, headers: Headers) -> Outcome:
        if isinstance(headers, ClientError):
            return headers
        request = attempt.request
        try:
            return await self._channel(attempt.server).infer(
                request.model,
                request.inputs,
                outputs=request.outputs,
                request_id=attempt.request_id,
                priority=request.priority,
                client_timeout=attempt.timeout_s,
                timeout=int(1e6 * attempt.timeout_s),  # for the server's steps: microseconds
                headers=headers,
            )
        except asyncio.CancelledError:
            # gRPC raises it where a channel is closed, too; only the caller's own is the caller's.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            return CancelledError(f"{request.model}: the client was closed")
        except Exception as error:  # noqa: BLE001  whatever comes of the wire has a meaning
            return self._failure(error, attempt)

    async def _look_up(self, lookup: Lookup) -> Outcome:
        if self._stored is None:
            return None
        try:
            if self._lookups is None:  # the loop's own threads are the service's
                self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, "adprior-stored")
            context = contextvars.copy_context()
            find = functools.partial(context.run, self._stored.find, lookup.user_id)
            future = asyncio.get_running_loop().run_in_executor(self._lookups, find)
            # Where it is late it is cancelled, so that nobody's lookups pile up.
            return await asyncio.wait_for(future, lookup.timeout_s)
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _channel(self, server: Server) -> Any:
        if self._closed:
            raise ValueError("closed channel")
        if server.url not in self._channels:
            self._channels[server.url] = InferenceServerClient(
                server.url, **self._channel_options(server)
            )
        return self._channels[server.url]

    async def _watch(self) -> None:
        """Check every server's readiness, until the client is closed."""
        while True:
            await asyncio.sleep(self._config.health_interval_s)
            headers = self._headers()
            if not isinstance(headers, ClientError):
                servers = self._core.fleet.servers
                await asyncio.gather(*(self._check(server, headers) for server in servers))

    async def _check(self, server: Server, headers: dict[str, str]) -> None:
        cause = ""
        try:
            is_ready = await self._channel(server).is_server_ready(
                headers=headers, client_timeout=CHECK_TIMEOUT_S
            )
        except Exception as error:  # noqa: BLE001  it is not ready, whatever the cause
            is_ready, cause = False, self._check_failure(error, server)
        server.check(is_ready=bool(is_ready), cause=cause)
