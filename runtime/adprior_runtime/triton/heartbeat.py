"""Detects that a model's process stood still: stopped, frozen with its container, or not scheduled.

tritonserver gives up a process that shows no sign of life for a second during a request: it answers
the request with INTERNAL and frees its memory. The limit is a constant of the Python backend
(24.10: ``stub_launcher.cc``, ``ReceiveMessageFromStub``); no option changes it. When the process
continues, it works on memory that is no longer its own, and Triton takes its answer for the answer
to the next request. Mostly the process or the server then aborts, but one user could get another
user's answer. So a process must end if Triton may have given it up.

::

    the server      sends ─────── 1 s ────────▶ checks ──────── 1 s ────────▶ checks
    the process     · · · ────── stands still ──────────── · · · · · · ·
                    a sign each 0.3 s                      continues

A process is given up if it shows no sign between two checks.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_BEAT_S: Final = 0.1
_LEAST_S: Final = 0.5
"""Shorter standstills are harmless."""
_CHECK_INTERVAL_S: Final = 1.0
_SIGN_INTERVAL_S: Final = 0.3
_LATE_S: Final = 0.2
"""The first sign after a standstill, or a request in transit, may be this late."""
_WAKING_S: Final = 0.5
"""Time in which a process that continues reaches the request that waited for it."""


class Standstill(NamedTuple):
    """A period in which the process did not run; it began at ``began``, or up to 0.1 s later."""

    began: float
    ended: float

    def is_fatal(self, sent_from: float, sent_until: float) -> bool:
        """Return whether a check of the server may have found no sign.

        Args:
            sent_from: Earliest time at which the server sent the current request.
            sent_until: Latest such time.
        """
        # Fatal if one check is in (first, last] and the check before it came after the last sign.
        first = self.began - _SIGN_INTERVAL_S
        last = self.ended - _CHECK_INTERVAL_S + _LATE_S
        checks_before = math.floor((last - sent_from) / _CHECK_INTERVAL_S)
        return last > first and checks_before >= 0 and checks_before > first - sent_until


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a function that returns this thread's CPU time, from any thread."""
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


class Heartbeat:
    """A thread that notes the time ten times a second; create it in the thread that works.

    Args:
        clock: Seconds, rising.
        work_clock: CPU seconds of the working thread. While that thread computes, a beat may be
            late although the process does not stand still.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._work_clock = _clock_of_this_thread() if work_clock is None else work_clock
        self._last = (clock(), self._work_clock())
        self._standstills: deque[Standstill] = deque(maxlen=16)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adprior-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._last = (self._clock(), self._work_clock())
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10 * _BEAT_S)

    def beat(self) -> None:
        """Note the time, and a standstill if the last beat is too long ago."""
        self._standstills.extend(self._since_the_last_beat())
        self._last = (self._clock(), self._work_clock())

    def is_given_up(self, began: float | None = None) -> bool:
        """Return whether the server may have given the process up during the current request.

        Args:
            began: When work on the request began; None if it is about to begin. Then the request
                may have waited during a standstill.
        """
        found = [*self._standstills, *self._since_the_last_beat()]
        if began is not None:
            return any(each.is_fatal(began - _LATE_S, began) for each in found)
        recently = self._clock() - _WAKING_S
        return any(each.is_fatal(each.began, each.ended) for each in found if each.ended > recently)

    def _since_the_last_beat(self) -> list[Standstill]:
        beaten_at, worked = self._last
        now = self._clock()
        stood_s = (now - beaten_at) - (self._work_clock() - worked)
        return [Standstill(now - stood_s, now)] if stood_s > _LEAST_S else []

    def _run(self) -> None:
        while not self._stopping.wait(_BEAT_S):
            self.beat()
