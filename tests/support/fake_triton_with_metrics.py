"""A fake server of forecasts that counts its calls on a real page of metrics, over HTTP."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from adprior_runtime.contract import ADVERTISER_DECODER, ADVERTISER_RETRIEVAL, LLM_ENGINE
from adprior_runtime.triton.metrics import (
    ANSWERS,
    BUNDLE_INFO,
    FORECAST_SHARE,
    INVALID_REQUESTS,
    SEARCH_TIME,
)
from support.fake_triton import FakeTriton

POPULAR: Final = (0.55, 0.25, 0.1, 0.05, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The usual popularity bins of a forecast."""


def metrics_text(
    *,
    bundle_id: str = "blue",
    answered: float = 0,
    failed: float = 0,
    invalid: float = 0,
    duration_us: float = 0,
    exact: float = 0,
    bounded: float = 0,
    bins: Sequence[float] = (0.0,) * 10,
    times_s: Sequence[float] = (),
) -> str:
    """Return a page of metrics as Triton writes it, of one model instance each.

    Without ``times_s``, the times of searches, it has no histogram of them.
    """
    decoder = f'model="{ADVERTISER_DECODER}",model_instance="{ADVERTISER_DECODER}_0"'
    retrieval = f'model="{ADVERTISER_RETRIEVAL}",version="1"'
    lines = [
        "# HELP nv_inference_request_success Number of successful inference requests",
        "# TYPE nv_inference_request_success counter",
        f"nv_inference_request_success{{{retrieval}}} {answered}",
        f'nv_inference_request_success{{model="{LLM_ENGINE}",version="1"}} 12345',
        f'nv_inference_request_failure{{{retrieval},reason="OTHER"}} {failed}',
        f'nv_inference_request_failure{{{retrieval},reason="CANCELED"}} 0',
        f"nv_inference_request_duration_us{{{retrieval}}} {duration_us}",
        f'{BUNDLE_INFO.name}{{{decoder},bundle_id="{bundle_id}"}} 1',
        f'{INVALID_REQUESTS.name}{{{decoder},reason="field"}} {invalid}',
        f'{ANSWERS.name}{{{decoder},exact="true"}} {exact}',
        f'{ANSWERS.name}{{{decoder},exact="false"}} {bounded}',
    ]
    for number, share in enumerate(bins, start=1):
        lines.append(f'{FORECAST_SHARE.name}{{{decoder},popularity_decile="{number}"}} {share}')
    engine = f'model="{LLM_ENGINE}",model_instance="{LLM_ENGINE}_0"'
    for bound in (*SEARCH_TIME.buckets, math.inf) if times_s else ():
        label = "+Inf" if bound == math.inf else f"{bound:.17g}"
        number = sum(time_s <= bound for time_s in times_s)
        lines.append(f'{SEARCH_TIME.name}_bucket{{{engine},le="{label}"}} {number}')
    return "\n".join(lines) + "\n"


class FakeTritonWithMetrics(FakeTriton):
    """A fake server whose metrics agree with what it has answered.

    Attributes:
        bundle_id: The bundle that it shows.
        delay_s: The time of an answer.
        tail_s: The time of every tenth answer; by default it is like the others.
        bins: The popularity bins of each of its forecasts.
        metrics_address: ``HOST:PORT`` of its metrics.
    """

    def __init__(self, bundle_id: str) -> None:
        super().__init__()
        self.bundle_id = bundle_id
        self.delay_s = 0.01
        self.tail_s: float | None = None
        self.bins: Sequence[float] = POPULAR
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._answered = self._failed = 0
        self._duration_us = 0.0
        self._bins = [0.0] * len(POPULAR)
        self._times_s: list[float] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.metrics_address = f"127.0.0.1:{self._http.server_address[1]}"

    def infer(self, request: Any, context: Any) -> Any:
        began = time.perf_counter()
        is_tenth = next(self._numbers) % 10 == 9
        delay_s = self.delay_s if self.tail_s is None or not is_tenth else self.tail_s
        time.sleep(delay_s)
        try:
            answer = super().infer(request, context)
        except BaseException:
            with self._lock:
                self._failed += 1
            raise
        with self._lock:
            self._answered += 1
            self._times_s.append(delay_s)  # a busy machine does not change it
            self._duration_us += 1e6 * (time.perf_counter() - began)
            self._bins = [a + b for a, b in zip(self._bins, self.bins, strict=True)]
        return answer

    def page(self) -> str:
        """Return the page of metrics."""
        with self._lock:
            return metrics_text(
                bundle_id=self.bundle_id,
                answered=self._answered,
                failed=self._failed,
                duration_us=self._duration_us,
                exact=self._answered,
                bins=self._bins,
                times_s=self._times_s,
            )

    def stop(self) -> None:
        """Stop at once, metrics too; a second stop does nothing."""
        super().stop()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler_of(server: FakeTritonWithMetrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = server.page().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep silent."""

    return Handler


@contextmanager
def running_with_metrics(*bundle_ids: str) -> Iterator[list[FakeTritonWithMetrics]]:
    """Start a server for each bundle."""
    servers = [FakeTritonWithMetrics(bundle_id) for bundle_id in bundle_ids]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()
