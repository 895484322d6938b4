"""OpenTelemetry spans and W3C trace context, where the package is installed; nothing where not.

A span says which call, what came of it and how long it took; never who the user is or what is known
of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adprior_client.results import Forecast, Ranking

_log = logging.getLogger("adprior_client")


class Telemetry:
    """Spans of one client's calls."""

    def __init__(self) -> None:
        self._inject: Any = None
        try:
            from opentelemetry import propagate, trace  # noqa: PLC0415  optional
        except ImportError:
            return
        self._inject = propagate.inject
        self._kind = trace.SpanKind.CLIENT
        self._tracer = trace.get_tracer("adprior_client")

    @contextmanager
    def span(self, name: str, request_id: str) -> Iterator[Any]:
        """Wrap a call; gives the span, or None where there is no tracing."""
        scope = self._open(name, request_id)
        span = None if scope is None else scope.span
        try:
            yield span
        except Exception as error:
            # An exception's text is the server's: only its type is noted.
            name = type(error).__name__
            _quietly(lambda: span is None or span.set_attribute("error.type", name))
            raise
        finally:
            if scope is not None:
                _quietly(scope.close)

    def headers(self) -> dict[str, str]:
        """Return the trace context of the present span, as call metadata."""
        found: dict[str, str] = {}
        if self._inject is not None:
            _quietly(lambda: self._inject(found))
        # gRPC takes keys in lower case only, and HTTP's are of no case.
        return {key.lower(): value for key, value in found.items()}

    def _open(self, name: str, request_id: str) -> _Scope | None:
        if self._inject is None:
            return None
        attributes = {"rpc.system": "grpc", "adprior.request_id": request_id}
        try:
            manager = self._tracer.start_as_current_span(
                name,
                kind=self._kind,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            )
            return _Scope(manager)
        except Exception as error:  # noqa: BLE001  tracing is the caller's own code
            _log.warning("adprior: tracing failed: %s", type(error).__name__)
            return None


class _Scope:
    """A span that is the current one until it is closed."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self.span = manager.__enter__()

    def close(self) -> None:
        self._manager.__exit__(None, None, None)


def describe(span: Any, result: Forecast | Ranking) -> None:
    """Note on a span what came of its call."""
    if span is None:
        return
    values = {"adprior.source": str(result.source), "adprior.bundle_id": result.bundle_id}
    if result.reason is not None:
        values["adprior.reason"] = str(result.reason)
    _quietly(lambda: span.set_attributes(values))


def _quietly(act: Callable[[], Any]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001  tracing is the caller's own code
        _log.warning("adprior: tracing failed: %s", type(error).__name__)
