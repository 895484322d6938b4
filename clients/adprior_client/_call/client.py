"""What every client is made of, whatever drives it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from adprior_client._call.attempts import Attempt, Call, Outcome, Steps
from adprior_client._call.checks import check_metadata
from adprior_client._call.core import Core
from adprior_client._call.credentials import Credentials
from adprior_client._call.forking import Forked, begin_anew_in_children
from adprior_client._call.server_choice import Server
from adprior_client._call.telemetry import Telemetry
from adprior_client._call.wire import channel_settings, error_of
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    ClientError,
    DeniedError,
    InvalidArgumentError,
    MetadataError,
    UnavailableError,
)
from adprior_client.results import Forecast, Ranking
from adprior_client.stored.forecast_source import ForecastSource
from adprior_client.types import UserId

Result_co = TypeVar("Result_co", Forecast, Ranking, covariant=True)
Headers = dict[str, str] | ClientError

CHECK_TIMEOUT_S: Final = 1.0
"""Of a health check."""
LOOKUP_THREADS: Final = 8
"""In which a source of stored forecasts is asked."""

_log = logging.getLogger("adprior_client")


class Work(Protocol[Result_co]):
    """What a caller asks for, checked: `Forecasting` or `Scoring`."""

    @property
    def key(self) -> bytes:
        """What chooses a server where no user id does."""
        ...

    def steps(self, core: Core, call: Call) -> Steps[Result_co]:
        """Ask."""
        ...


class Client(Forked):
    """Settings, servers, tracing and metadata; the channels are its children's.

    Args:
        config: How to behave, or a server's ``HOST:PORT`` for the defaults.
        stored: Where to look when the live answer does not come; asked in a thread.
        kill_switch: Asked at each call: while it is true, nothing is asked and nothing applied.
            Like ``metadata``, it must be quick: nothing can be done in its time.
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
        for name, function in (
            ("metadata", metadata),
            ("stored.find", getattr(stored, "find", None)),
        ):
            if inspect.iscoroutinefunction(function):
                raise InvalidArgumentError(
                    f"{name}: found a coroutine function, expected a plain one"
                )
        self._config = ClientConfig.of(config)
        self._core = Core(self._config, has_stored=stored is not None, kill_switch=kill_switch)
        self._stored = stored
        self._metadata = metadata
        self._telemetry = Telemetry()
        self._credentials = Credentials(self._config)
        self._channels: dict[str, Any] = {}
        self._left: list[dict[str, Any]] = []
        self._prepare()
        begin_anew_in_children(self)

    def _prepare(self) -> None:
        """Set up what a driver needs; nothing is opened yet."""
        raise NotImplementedError

    def _begin_anew(self) -> None:
        """Forget channels, threads and what is known of servers, in a process that was forked.

        The parent's channels are kept and not touched: closing one would wait for its threads.
        """
        self._left.append(self._channels)
        self._channels = {}
        self._credentials.renew()
        self._core.begin_anew()
        self._prepare()

    def _begin(
        self,
        work: Work[Result_co],
        user_id: UserId | None,
        deadline_s: float | None,
        request_id: str | None = None,
    ) -> Call:
        return self._core.begin(work.key, user_id, deadline_s, request_id)

    def _headers(self) -> Headers:
        """Return what goes along with a call, or why nothing can."""
        headers = dict(self._config.metadata) | self._credentials.token | self._telemetry.headers()
        if self._metadata is None:
            return headers
        try:
            added = dict(self._metadata())
            check_metadata(added.items())
        except Exception as error:  # noqa: BLE001  the caller's own code
            _log.warning("adprior: the metadata function failed: %s", type(error).__name__)
            return MetadataError(f"metadata: the function failed: {type(error).__name__}")
        return headers | added

    def _check_failure(self, error: Exception, server: Server) -> str:
        """Return the cause of a health check's failure, empty where it is not known."""
        found = error_of(error, "health", server.url, CHECK_TIMEOUT_S, self._config)
        self._renew(found)
        return found.cause

    def _failure(self, error: Exception, attempt: Attempt) -> Outcome:
        place = attempt.request.model, attempt.server.url
        found = error_of(error, *place, attempt.timeout_s, self._config)
        self._renew(found)
        return found

    def _renew(self, error: ClientError) -> None:
        """Make channels anew where a server is out of reach and our files have changed.

        Calls under way keep the channel that they have, which is closed with the last of them.
        """
        if isinstance(error, UnavailableError | DeniedError) and self._credentials.renew():
            self._channels = {}

    def _channel_options(self, server: Server) -> dict[str, Any]:
        """Return what tritonclient's clients take beside the address."""
        settings = channel_settings(self._config, server.url)
        return settings | {"creds": self._credentials.channel}
