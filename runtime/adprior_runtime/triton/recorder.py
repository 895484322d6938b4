"""Counts in a model's process; a thread passes them to the server once a second.

A call into Triton for each count would slow requests down, since it waits for the server's process.
So requests only add numbers here. No error here affects a request: numbers that the server does not
take are lost, and the first error is logged.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from adprior_runtime.triton.metric_series import Series, Sink
from adprior_runtime.triton.metrics import Metric

_INTERVAL_S: Final = 1.0
_LAST_FLUSH_S: Final = 3.0
"""Limit of the last flush: a server that does not answer must not prevent the process's end."""
_MAX_VALUES: Final = 10_000
"""Values kept for histograms until the server takes them."""
_log = logging.getLogger("adprior")

Answer = TypeVar("Answer")


class Recorder:
    """The numbers of one model instance on their way to ``/metrics``."""

    def __init__(self) -> None:
        self._sinks: dict[Series, Sink] = {}
        self._lock = threading.Lock()
        self._counts: dict[Series, float] = {}
        self._values: list[tuple[Series, float]] = []
        self._gauges: dict[Series, Callable[[], float]] = {}
        self._shown: dict[Series, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adprior-metrics", daemon=True)
        self._has_failed = False

    def count(self, metric: Metric, number: float = 1, value: str = "") -> None:
        """Add ``number`` to a counter, for one value of its label."""
        series = (metric.name, value)
        with self._lock:
            self._counts[series] = self._counts.get(series, 0) + number

    def observe(self, metric: Metric, value: float) -> None:
        """Add one value to a histogram."""
        with self._lock:
            if len(self._values) < _MAX_VALUES:
                self._values.append(((metric.name, ""), value))

    def follow(self, metric: Metric, read: Callable[[], float], value: str = "") -> None:
        """Keep a gauge at the value that ``read`` returns."""
        self._gauges[metric.name, value] = read

    def record(self, answer: Answer, count: Callable[[Answer], None]) -> None:
        """Call ``count`` with an answer; an error in it does not affect the answer."""
        try:
            count(answer)
        except Exception as error:  # noqa: BLE001  an answer matters more than its metrics
            self._log_once(count.__name__, error)

    def connect(self, sinks: Mapping[Series, Sink]) -> None:
        """Set the server's series; numbers of a missing series are dropped."""
        self._sinks.update(sinks)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on the last numbers, and release the server's series."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_FLUSH_S)
        if not self._thread.is_alive():
            self.flush()
        self._sinks.clear()

    def flush(self) -> None:
        """Pass the numbers on; call it from one thread at a time."""
        with self._lock:
            counts, self._counts = self._counts, {}
            values, self._values = self._values, []
        for series, number in counts.items():
            # A NaN would stay in a counter for ever; a 0 needs no call.
            if number > 0 and math.isfinite(number):
                self._try(series, "increment", number)
        for series, value in values:
            if math.isfinite(value):
                self._try(series, "observe", value)
        for series, read in self._gauges.items():
            self._try_gauge(series, read)

    def _try_gauge(self, series: Series, read: Callable[[], float]) -> None:
        try:
            value = read()
        except Exception as error:  # noqa: BLE001
            self._log_once(series[0], error)
            return
        if value != self._shown.get(series):  # no call without a change
            self._shown[series] = value
            self._try(series, "set", value)

    def _try(self, series: Series, how: str, number: float) -> None:
        if (sink := self._sinks.get(series)) is None:
            return
        try:
            getattr(sink, how)(number)
        except Exception as error:  # noqa: BLE001  whatever it is, requests go on
            self._log_once(series[0], error)

    def _log_once(self, what: str, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.warning("metrics: %s failed: %s", what, type(error).__name__)

    def _run(self) -> None:
        self.flush()
        while not self._stopping.wait(_INTERVAL_S):
            self.flush()
