"""Calls that block: the driver of `RetrievalClient` and `RankingClient`."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from tritonclient.grpc import InferenceServerClient

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
from adprior_client.errors import ClientError

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")
_log = logging.getLogger("adprior_client")


class BlockingClient(Client):
    """Owns the channels to the servers; a context manager, which threads may share.

    Channels open at the first call; a process that is forked opens its own. Closing it cancels the
    calls under way, at the server too. `Client` has its arguments.
    """

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._checking = threading.Lock()
        self._is_still = False
        self._watcher: threading.Thread | None = None
        self._lookups: ThreadPoolExecutor | None = None

    def _renew(self, error: ClientError) -> None:
        with self._lock:
            super()._renew(error)

    def _hold_still(self) -> None:
        """See `Forked._hold_still`: gRPC forks well only where no thread is at it."""
        self._is_still = self._checking.acquire(timeout=CHECK_TIMEOUT_S)

    def _go_on(self) -> None:
        """See `Forked._go_on`."""
        if self._is_still:
            self._checking.release()

    def _begin_anew(self) -> None:
        """See `Client._begin_anew`."""
        was_closed = self._closed.is_set()
        super()._begin_anew()
        if was_closed:
            self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels: calls under way, and later ones, are cancelled."""
        with self._lock:
            self._closed.set()
            channels, self._channels = list(self._channels.values()), {}
            lookups, self._lookups = self._lookups, None
        for channel in channels:
            channel.close()
        if lookups is not None:
            lookups.shutdown(wait=False, cancel_futures=True)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=2 * CHECK_TIMEOUT_S)

    def _run(self, name: str, work: Work[Result_co], call: Call) -> Result_co:
        """Drive a call to its end."""
        if self._watcher is None and self._config.health_interval_s > 0:
            self._start_watching()
        steps = work.steps(self._core, call)
        with self._telemetry.span(f"adprior.{name}", call.request_id) as span:
            headers = self._headers()
            try:
                step = next(steps)
                while True:
                    step = steps.send(self._do(step, headers))
            except StopIteration as stop:
                result: Result_co = stop.value
            finally:
                steps.close()
            describe(span, result)
        return result

    def _run_many(
        self, ask: Callable[[_Item], _Answer], items: Iterable[_Item], max_concurrency: int
    ) -> list[_Answer]:
        """Ask about each item, which is taken once there is a place for it, until one fails."""
        limit = check_concurrency(max_concurrency)
        places, failed = threading.Semaphore(limit), threading.Event()

        def ask_in_turn(item: _Item) -> _Answer:
            try:
                return ask(item)
            except BaseException:
                failed.set()
                raise
            finally:
                places.release()

        futures = []
        remaining = iter(items)
        with ThreadPoolExecutor(limit) as pool:
            while places.acquire() and not failed.is_set():
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                # In a copy of the caller's context, for the trace that it is part of.
                context = contextvars.copy_context()
                futures.append(pool.submit(context.run, ask_in_turn, item))
            return [future.result() for future in futures]

    def _do(self, step: Step, headers: Headers) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return self._look_up(step) if isinstance(step, Lookup) else self._attempt(step, headers)

    def _attempt(self, attempt: Attempt, headers: Headers) -> Outcome:
        if isinstance(headers, ClientError):
            return headers
        request = attempt.request
        try:
            return self._channel(attempt.server).infer(
                request.model,
                request.inputs,
                outputs=request.outputs,
                request_id=attempt.request_id,
                priority=request.priority,
                client_timeout=attempt.timeout_s,
                timeout=int(1e6 * attempt.timeout_s),  # for the server's steps: microseconds
                headers=headers,
            )
        except Exception as error:  # noqa: BLE001  whatever comes of the wire has a meaning
            return self._failure(error, attempt)

    def _look_up(self, lookup: Lookup) -> Outcome:
        if self._stored is None:
            return None
        try:
            with self._lock:
                if self._lookups is None:
                    self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, "adprior-stored")
                future = self._lookups.submit(self._stored.find, lookup.user_id)
            try:
                return future.result(lookup.timeout_s)
            finally:
                future.cancel()  # while the source is slow, nobody's lookups are to pile up
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _channel(self, server: Server) -> Any:
        channel = self._channels.get(server.url)
        if channel is None:
            with self._lock:
                if self._closed.is_set():
                    raise ValueError("closed channel")
                if server.url not in self._channels:
                    self._channels[server.url] = InferenceServerClient(
                        server.url, **self._channel_options(server)
                    )
                channel = self._channels[server.url]
        return channel

    def _start_watching(self) -> None:
        with self._lock:
            if self._watcher is None and not self._closed.is_set():
                self._watcher = threading.Thread(
                    target=self._watch, name="adprior-health", daemon=True
                )
                self._watcher.start()

    def _watch(self) -> None:
        """Check every server's readiness, until the client is closed."""
        while not self._closed.wait(self._config.health_interval_s):
            headers = self._headers()
            if isinstance(headers, ClientError):
                continue
            for server in self._core.fleet.servers:
                with self._checking:
                    self._check(server, headers)

    def _check(self, server: Server, headers: dict[str, str]) -> None:
        cause = ""
        try:
            is_ready = self._channel(server).is_server_ready(
                headers=headers, client_timeout=CHECK_TIMEOUT_S
            )
        except Exception as error:  # noqa: BLE001  it is not ready, whatever the cause
            is_ready, cause = False, self._check_failure(error, server)
        if not self._closed.is_set():
            server.check(is_ready=bool(is_ready), cause=cause)
