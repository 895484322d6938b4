"""The base of all clients: settings, servers, switches, credentials."""

from __future__ import annotations

import inspect
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

from adprior_client._call.call import Attempt, Call, Deadline, Result_co, Run, Work
from adprior_client._call.credentials import Credentials
from adprior_client._call.discovery import Discovery, DiscoveryCounts
from adprior_client._call.server_choice import Fleet, Server, user_key
from adprior_client._call.telemetry import Telemetry, describe
from adprior_client._call.wire import channel_settings, error_of
from adprior_client.checks import check_metadata, check_request_id
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    ClientError,
    DeniedError,
    InvalidArgumentError,
    MetadataError,
    UnavailableError,
)
from adprior_client.forking import Forked, begin_anew_in_children
from adprior_client.results import Forecast, Ranking
from adprior_client.server_sources import Address
from adprior_client.stored.forecast_source import ForecastSource
from adprior_client.types import Reason

Headers = dict[str, str] | ClientError
"""The metadata of a call, or the error if the caller's function failed."""
_ChannelKey: TypeAlias = tuple[Address, bool]
"""A server, and whether it is the only one."""
_Result = TypeVar("_Result", Forecast, Ranking)
HEALTH_CHECK_S: Final = 1.0
"""Timeout of a health check."""
LOOKUP_THREADS: Final = 8
"""Threads that ask a source of stored forecasts."""

_log = logging.getLogger("adprior_client")


class Client(Forked):
    """A client without a driver; `RetrievalClient` describes the arguments."""

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
            ("kill_switch", kill_switch),
            ("stored.find", getattr(stored, "find", None)),
        ):
            if inspect.iscoroutinefunction(function):
                raise InvalidArgumentError(
                    f"{name}: found a coroutine function, expected a plain one"
                )
        self._config = ClientConfig.of(config)
        self._discovery = Discovery(self._config, self._adopt_servers)
        self._fleet = self._make_fleet()
        self._stored = stored
        self._kill_switch = kill_switch
        self._metadata = metadata
        self._telemetry = Telemetry()
        self._credentials = Credentials(self._config)
        self._channels: dict[_ChannelKey, Any] = {}
        self._parents_channels: list[dict[_ChannelKey, Any]] = []
        self._prepare()
        begin_anew_in_children(self)

    @property
    def discovery(self) -> DiscoveryCounts:
        """What the client's ``dns:///`` and ``file:///`` have answered."""
        return self._discovery.counts

    def _prepare(self) -> None:
        """Set up the driver's own state; nothing is opened yet."""
        raise NotImplementedError

    def _make_fleet(self) -> Fleet:
        discovery = self._discovery
        return Fleet(self._config, discovery.servers, on_failure=discovery.renew)

    def _adopt_servers(self) -> None:
        """Use the servers that were found; called in the thread of the discovery."""
        self._fleet.update(self._discovery.servers)
        self._drop_channels()

    def _drop_channels(self) -> None:
        """Drop the channels that `_drop_unlisted` names, where the driver may do so."""
        raise NotImplementedError

    def _drop_unlisted(self) -> None:
        """Drop the channels of servers that are not listed any more.

        Calls under way keep their channel, which is closed with the last of them.
        """
        listed = {self._channel_key(server) for server in self._fleet.servers}
        kept = {key: channel for key, channel in self._channels.items() if key in listed}
        self._channels = kept

    def _channel_key(self, server: Server) -> _ChannelKey:
        """Return what a channel depends on: gRPC retries only at a single server."""
        return server.address, len(self._fleet.servers) == 1

    def _begin_anew(self) -> None:
        """Start anew in a forked process, without the parent's channels, threads and states.

        The parent's channels are kept open: closing one would wait for the parent's threads.
        """
        self._parents_channels.append(self._channels)
        self._channels = {}
        self._credentials.renew()
        self._fleet = self._make_fleet()
        self._prepare()

    def _begin(
        self, work: Work[Result_co], deadline_s: float | None, request_id: str | None
    ) -> Call:
        deadline = Deadline.start(self._config, deadline_s)
        key = work.key if work.user_id is None else user_key(work.user_id)
        if request_id is not None:
            check_request_id(request_id)
        return Call(
            config=self._config,
            fleet=self._fleet,
            discovery=self._discovery,
            key=key,
            deadline=deadline,
            request_id=request_id or uuid.uuid4().hex,
            stored_user_id=None if self._stored is None else work.user_id,
            held_for=self._reason_to_hold(treatment=work.treatment),
        )

    @contextmanager
    def _run(self, work: Work[_Result], call: Call) -> Iterator[tuple[Run[_Result], Headers]]:
        """Begin a call's span and steps, and end them; yields the call's metadata too."""
        with self._telemetry.span(f"adprior.{work.name}", call.request_id) as span:
            headers, steps = self._headers(), work.steps(call)
            try:
                run = Run(steps)
                yield run, headers
            finally:
                steps.close()
            describe(span, run.result)

    def _reason_to_hold(self, *, treatment: bool) -> Reason | None:
        if self._is_killed():
            return Reason.KILL_SWITCH
        return None if treatment else Reason.CONTROL

    def _is_killed(self) -> bool:
        path = self._config.kill_switch_file
        if path is not None and os.path.exists(path):  # noqa: PTH110  twice as fast
            return True
        try:
            return self._kill_switch is not None and bool(self._kill_switch())
        except Exception as error:  # noqa: BLE001  the caller's own code
            _log.warning(
                "adprior: the kill switch failed (%s) and counts as on", type(error).__name__
            )
            return True

    def _headers(self) -> Headers:
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

    def _failure_of(self, attempt: Attempt, error: Exception) -> ClientError:
        return self._explain(error, attempt.request.model, attempt.server, attempt.timeout_s)

    def _cause_of(self, server: Server, error: Exception) -> str:
        """Return the cause of a failed health check; empty if it is not known."""
        return self._explain(error, "health", server, HEALTH_CHECK_S).cause

    def _explain(
        self, error: Exception, model: str, server: Server, timeout_s: float
    ) -> ClientError:
        found = error_of(error, model, server.address, timeout_s, self._config)
        self._renew(found)
        return found

    def _renew(self, error: ClientError) -> None:
        """Replace the channels if a server is out of reach and the credentials have changed.

        Calls under way keep their channel, which is closed with the last of them.
        """
        if isinstance(error, UnavailableError | DeniedError) and self._credentials.renew():
            self._channels = {}

    def _channel_options(self, key: _ChannelKey) -> dict[str, Any]:
        address, is_only = key
        settings = channel_settings(self._config, address, is_only=is_only)
        return settings | {"creds": self._credentials.channel}
