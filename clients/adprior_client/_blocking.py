"""Calls that block: the driver of `RetrievalClient` and `RankingClient`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from tritonclient.grpc import InferenceServerClient

from adprior_client._calls import Attempt, Call, Lookup, Outcome, Steps
from adprior_client._core import Core
from adprior_client._fleet import Server
from adprior_client._telemetry import Telemetry, describe
from adprior_client._wire import channel_settings, error_of
from adprior_client.config import ClientConfig, check_concurrency
from adprior_client.errors import ClientError
from adprior_client.results import Forecast, Ranking
from adprior_client.sources import ForecastSource

__all__ = ["BlockingClient"]

_Result = TypeVar("_Result", Forecast, Ranking)
_Item = TypeVar("_Item")
_log = logging.getLogger("adprior_client")
_CHECK_TIMEOUT_S = 1.0


class BlockingClient:
    """Owns the channels to the servers; a context manager, which threads may share.

    Channels open at the first call, so that a client may be made before a process forks and called
    after. Closing it cancels the calls under way, at the server too.

    Args:
        config: How to behave, or a server's ``HOST:PORT`` for the defaults.
        stored: Where to look when the live answer does not come.
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
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

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
        """Close the channels: calls under way are cancelled, later ones refused."""
        with self._lock:
            self._closed.set()
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=2 * _CHECK_TIMEOUT_S)

    def _run(self, name: str, call: Call, steps: Steps[_Result]) -> _Result:
        """Drive a call to its end."""
        if self._closed.is_set():
            raise ClientError(f"{name}: this client is closed")
        if self._watcher is None and self._config.health_interval_s > 0:
            self._start_watching()
        with self._telemetry.span(f"adprior.{name}", call.request_id) as span:
            try:
                step = next(steps)
                while True:
                    step = steps.send(self._do(step))
            except StopIteration as stop:
                result: _Result = stop.value
            finally:
                steps.close()
            describe(span, result)
        return result

    def _run_many(
        self, ask: Callable[[_Item], _Result], items: Iterable[_Item], max_concurrency: int
    ) -> list[_Result]:
        with ThreadPoolExecutor(max_workers=check_concurrency(max_concurrency)) as pool:
            return list(pool.map(ask, items))

    def _do(self, step: Attempt | Lookup) -> Outcome:
        return self._look_up(step) if isinstance(step, Lookup) else self._attempt(step)

    def _attempt(self, attempt: Attempt) -> Outcome:
        request = attempt.request
        try:
            answer: Outcome = self._channel(attempt.server).infer(
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

    def _look_up(self, lookup: Lookup) -> Outcome:
        try:
            return None if self._stored is None else self._stored.find(lookup.user_id)
        except Exception as error:  # noqa: BLE001  a source is the caller's own code
            _log.warning("adprior: the stored forecasts failed: %s", type(error).__name__)
            return None

    def _headers(self) -> dict[str, str]:
        headers = dict(self._config.metadata) | self._telemetry.headers()
        return headers if self._metadata is None else headers | dict(self._metadata())

    def _channel(self, server: Server) -> Any:
        channel = self._channels.get(server.url)
        if channel is None:
            with self._lock:
                if self._closed.is_set():
                    raise ValueError("closed channel")
                if server.url not in self._channels:
                    self._channels[server.url] = InferenceServerClient(server.url, **self._settings)
                channel = self._channels[server.url]
        return channel

    def _start_watching(self) -> None:
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(
                    target=self._watch, name="adprior-health", daemon=True
                )
                self._watcher.start()

    def _watch(self) -> None:
        """Check every server's readiness, until the client is closed."""
        while not self._closed.wait(self._config.health_interval_s):
            for server in self._core.fleet.servers:
                try:
                    is_ready = self._channel(server).is_server_ready(
                        headers=self._headers(), client_timeout=_CHECK_TIMEOUT_S
                    )
                except Exception:  # noqa: BLE001  it is not ready, whatever the cause
                    is_ready = False
                if not self._closed.is_set():
                    server.check(is_ready=bool(is_ready))
