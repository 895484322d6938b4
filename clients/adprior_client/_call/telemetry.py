"""OpenTelemetry spans and W3C trace context, if the package is installed.

A span holds the call's name, outcome and duration; nothing about the user.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
        """Wrap a call; gives the span, or None without tracing."""
        scope = ExitStack()
        span = self._open(scope, name, request_id)
        try:
            yield span
        except Exception as error:
            # The text of an exception comes from the server: only its type is recorded.
            name = type(error).__name__
            _quietly(lambda: span is None or span.set_attribute("error.type", name))
            raise
        finally:
            _quietly(scope.close)

    def headers(self) -> dict[str, str]:
        """Return the trace context of the current span, as call metadata."""
        found: dict[str, str] = {}
        if self._inject is not None:
            _quietly(lambda: self._inject(found))
        # gRPC accepts only lower-case keys; HTTP's keys ignore case.
        return {key.lower(): value for key, value in found.items()}

    def _open(self, scope: ExitStack, name: str, request_id: str) -> Any:
        if self._inject is None:
            return None
        manager = functools.partial(
            self._tracer.start_as_current_span,
            name,
            kind=self._kind,
            attributes={"rpc.system": "grpc", "adprior.request_id": request_id},
            record_exception=False,
            set_status_on_exception=False,
        )
        return _quietly(lambda: scope.enter_context(manager()))


def describe(span: Any, result: Forecast | Ranking) -> None:
    """Record the outcome of a call on its span."""
    if span is None:
        return
    values = {"adprior.source": str(result.source), "adprior.bundle_id": result.bundle_id}
    if result.reason is not None:
        values["adprior.reason"] = str(result.reason)
    _quietly(lambda: span.set_attributes(values))


def _quietly(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:  # noqa: BLE001  tracing is the caller's own code
        _log.warning("adprior: tracing failed: %s", type(error).__name__)
        return None
