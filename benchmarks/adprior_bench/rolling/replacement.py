"""Replaces every server of a fleet under load, and says when which part of it happened."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from adprior_bench.rolling.callers import Callers
from adprior_bench.rolling.fleet import Fleet
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.terminal.progress import progress_bar


class Phase(StrEnum):
    """A phase of the replacement.

    Attributes:
        QUIET: No server changes.
        STARTING: A new server loads its models.
        LEAVING: A server has left the list, still serves, and then stops.
    """

    QUIET = "quiet"
    STARTING = "a new server starts"
    LEAVING = "the old server leaves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in which one thing happened.

    Attributes:
        phase: The phase that it belongs to.
        start_s: Its start, in seconds of the monotonic clock.
        stop_s: Its end.
        busy: The share of the machine's processors that were busy, other work included.
    """

    phase: Phase
    start_s: float
    stop_s: float
    busy: float


class Course:
    """Records the phases, and how busy the machine is in each.

    Attributes:
        spans: The times that are over, one after another.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._since = time.monotonic()
        self._processors = _processor_seconds()

    def end(self, phase: Phase) -> None:
        """Add the time since the last call as one of this phase."""
        now, processors = time.monotonic(), _processor_seconds()
        used, all_ = (
            after - before for after, before in zip(processors, self._processors, strict=True)
        )
        self.spans.append(
            Span(
                phase=phase,
                start_s=self._since,
                stop_s=now,
                busy=used / all_ if all_ else 0.0,
            )
        )
        self._since, self._processors = now, processors


def replace_all(
    fleet: Fleet,
    callers: Callers,
    repository: Path,
    count: int,
    *,
    drain_s: float,
    quiet_s: float,
) -> Sequence[Span]:
    """Replace the servers one after another, between two quiet times; return what happened when.

    A new server is ready before an old one leaves the list, as in a Deployment of Kubernetes with
    ``maxUnavailable: 0``. An old one serves on for ``drain_s``, as the chart's ``preStop`` hook
    does, and then gets SIGTERM. When half of the servers have the new bundle, the callers get its
    forecasts: from then on they need its servers, and until then they needed the old ones.

    Args:
        fleet: The servers.
        callers: Who calls them.
        repository: The new servers' model repository.
        count: Servers to replace: two or more.
        drain_s: How long a server serves on when it has left the list.
        quiet_s: Length of each quiet time.
    """
    course = Course()
    time.sleep(quiet_s)
    course.end(Phase.QUIET)
    with progress_bar(total=count, desc="replaced", unit="server") as bar:
        for done in range(count):
            if done == count // 2:
                callers.hold_new_forecasts()
            leaving = fleet.replace_first(repository)
            course.end(Phase.STARTING)
            _retire(leaving, drain_s)
            course.end(Phase.LEAVING)
            bar.update(1)
    time.sleep(quiet_s)
    course.end(Phase.QUIET)
    return course.spans


def _retire(server: TritonServer, drain_s: float) -> None:
    try:
        server.serve_on(drain_s)
    finally:
        server.stop()


def _processor_seconds() -> tuple[float, float]:
    """Return the busy and all seconds of the machine's processors."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times[:8]) - idle, sum(times[:8])
