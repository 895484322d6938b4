"""OpenTelemetry spans and W3C trace context, where the package is installed; nothing where not.

A span says which call, what came of it and how long it took; never who the user is or what is known
of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adprior_client.results import Forecast, Ranking

__all__ = ["Telemetry", "describe"]


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
        if self._inject is None:
            yield None
            return
        attributes = {"rpc.system": "grpc", "adprior.request_id": request_id}
        # An exception's text is the server's: only its type is noted.
        with self._tracer.start_as_current_span(
            name,
            kind=self._kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        """Return the trace context of the present span, as call metadata."""
        found: dict[str, str] = {}
        if self._inject is not None:
            self._inject(found)
        return found


def describe(span: Any, result: Forecast | Ranking) -> None:
    """Note on a span what came of its call."""
    if span is None:
        return
    span.set_attribute("adprior.source", str(result.source))
    span.set_attribute("adprior.bundle_id", result.bundle_id)
    if result.reason is not None:
        span.set_attribute("adprior.reason", str(result.reason))
