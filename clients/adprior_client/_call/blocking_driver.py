"""The driver of `RetrievalClient` and `RankingClient`: calls that block."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from tritonclient.grpc import InferenceServerClient

from adprior_client._call.call import Attempt, Lookup, Outcome, Pause, Step, Wait, Work
from adprior_client._call.client import HEALTH_CHECK_S, LOOKUP_THREADS, Client, Headers
from adprior_client._call.server_choice import Server
from adprior_client.checks import check_concurrency
from adprior_client.errors import ClientError
from adprior_client.results import Forecast, Ranking

_Request = TypeVar("_Request")
_Result = TypeVar("_Result", Forecast, Ranking)
_log = logging.getLogger("adprior_client")


class BlockingClient(Client):
    """A client with its channels: a context manager, which threads may share.

    Channels open at the first call; a forked process opens its own. Closing the client cancels the
    calls under way, at the server too.
    """

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._checking = threading.Lock()
        self._holds_checks = False
        self._watcher: threading.Thread | None = None
        self._lookups: ThreadPoolExecutor | None = None

    def _renew(self, error: ClientError) -> None:
        with self._lock:
            super()._renew(error)

    def _hold_still(self) -> None:
        """See `Forked._hold_still`: gRPC survives a fork only if no thread is using it."""
        self._holds_checks = self._checking.acquire(timeout=HEALTH_CHECK_S)

    def _go_on(self) -> None:
        """See `Forked._go_on`."""
        if self._holds_checks:
            self._checking.release()

    def _begin_anew(self) -> None:
        """See `Client._begin_anew`."""
        was_closed = self._closed.is_set()
        super()._begin_anew()
        if was_closed:
            self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels: calls under way, and later ones, are cancelled."""
        with self._lock:
            self._closed.set()
            self._discovery.close()
            channels, self._channels = list(self._channels.values()), {}
            lookups, self._lookups = self._lookups, None
        for channel in channels:
            channel.close()
        if lookups is not None:
            lookups.shutdown(wait=False, cancel_futures=True)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=2 * HEALTH_CHECK_S)

    def _ask(
        self, work: Work[_Result], deadline_s: float | None, request_id: str | None = None
    ) -> _Result:
        """Run a call to its end."""
        call = self._begin(work, deadline_s, request_id)
        self._discovery.start()
        self._start_watching()
        with self._run(work, call) as (run, headers):
            while run.step is not None:
                run.resume(self._do(run.step, headers))
        return run.result

    def _ask_many(
        self,
        check: Callable[[_Request], Work[_Result]],
        requests: Iterable[_Request],
        max_concurrency: int,
        deadline_s: float | None,
    ) -> list[_Result]:
        """Run a call for each request until one fails; take a request when a call is free."""
        limit = check_concurrency(max_concurrency)
        places, failed = threading.Semaphore(limit), threading.Event()

        def ask_one(request: _Request) -> _Result:
            try:
                return self._ask(check(request), deadline_s)
            except BaseException:
                failed.set()
                raise
            finally:
                places.release()

        calls = []
        remaining = iter(requests)
        with ThreadPoolExecutor(limit) as pool:
            while places.acquire() and not failed.is_set():
                try:
                    request = next(remaining)
                except StopIteration:
                    break
                # A copy of the caller's context keeps the call in the caller's trace.
                context = contextvars.copy_context()
                calls.append(pool.submit(context.run, ask_one, request))
            return [call.result() for call in calls]

    def _do(self, step: Step, headers: Headers) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Wait):
            futures.wait([step.answer], step.timeout_s)
            return None
        return self._look_up(step) if isinstance(step, Lookup) else self._attempt(step, headers)

    def _attempt(self, attempt: Attempt, headers: Headers) -> Outcome:
        if isinstance(headers, ClientError):
            return headers
        arguments = attempt.request.arguments(attempt.timeout_s, headers)
        try:
            channel = self._channel(attempt.server)
            return channel.infer(**arguments, request_id=attempt.request_id)
        except Exception as error:  # noqa: BLE001  every error of the wire has a meaning
            return self._failure_of(attempt, error)

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
                future.cancel()  # lookups must not pile up while the source is slow
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _channel(self, server: Server) -> Any:
        key = self._channel_key(server)
        channel = self._channels.get(key)
        if channel is None:
            with self._lock:
                if self._closed.is_set():
                    raise ValueError("closed channel")
                if key not in self._channels:
                    self._channels[key] = InferenceServerClient(
                        server.url, **self._channel_options(key)
                    )
                channel = self._channels[key]
        return channel

    def _drop_channels(self) -> None:
        with self._lock:
            before = self._channels
            self._drop_unlisted()
        del before  # closes channels, which takes no lock of ours

    def _start_watching(self) -> None:
        if self._watcher is not None or self._config.health_interval_s <= 0:
            return
        with self._lock:
            if self._watcher is None and not self._closed.is_set():
                self._watcher = threading.Thread(
                    target=self._watch, name="adprior-health", daemon=True
                )
                self._watcher.start()

    def _watch(self) -> None:
        """Check every server's readiness until the client is closed."""
        while not self._closed.wait(self._config.health_interval_s):
            headers = self._headers()
            if isinstance(headers, ClientError):
                continue
            for server in self._fleet.servers:
                with self._checking:
                    self._check(server, headers)

    def _check(self, server: Server, headers: dict[str, str]) -> None:
        cause = ""
        try:
            is_ready = self._channel(server).is_server_ready(
                headers=headers, client_timeout=HEALTH_CHECK_S
            )
        except Exception as error:  # noqa: BLE001  it is not ready, whatever the cause
            is_ready, cause = False, self._cause_of(server, error)
        if not self._closed.is_set():
            server.check(is_ready=bool(is_ready), cause=cause)
