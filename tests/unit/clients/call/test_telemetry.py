from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adprior_client import RankingClient
from support.client_calls import BASE, CANDIDATES, FORECAST, SECRET, Kind, every_kind
from support.fake_triton import FakeTriton


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@every_kind
def test_a_call_is_a_span_in_the_callers_trace(
    triton: FakeTriton, kind: Kind, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    with trace.get_tracer("service").start_as_current_span("page view") as outer:
        kind.ask(triton.config(fail_open=True), user_id=SECRET)
    triton.status = grpc.StatusCode.INTERNAL
    kind.ask(triton.config(fail_open=True), user_id=SECRET)
    first, _, second = spans.get_finished_spans()
    assert first.name == ("adprior.score" if kind.ranks else "adprior.forecast")
    assert first.parent is not None
    assert first.parent.span_id == outer.get_span_context().span_id
    assert first.context is not None
    assert format(first.context.span_id, "016x") in triton.metadata[0]["traceparent"]
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["adprior.bundle_id"] == "bundle-1"
    assert second.attributes["adprior.reason"] == "bad_answer"
    assert SECRET not in "".join(span.to_json() for span in (first, second))


def test_failing_tracing_does_no_harm(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def inject(self, carrier: Any) -> None:
            raise RuntimeError

        def start_as_current_span(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError

    with RankingClient(triton.config()) as client:
        monkeypatch.setattr(client._telemetry, "_inject", Broken().inject)
        monkeypatch.setattr(client._telemetry, "_tracer", Broken())
        assert client.score(FORECAST, CANDIDATES, BASE).applied
        upper: Callable[[Any], None] = lambda found: found.update({"X-Amzn-Trace-Id": "1"})  # noqa: E731
        monkeypatch.setattr(client._telemetry, "_inject", upper)
        assert client.score(FORECAST, CANDIDATES, BASE).applied
    assert triton.metadata[-1]["x-amzn-trace-id"] == "1"
