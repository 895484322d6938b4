"""Whether a model's process stood still: stopped, frozen with its container, or without a turn.

tritonserver gives a process up that shows no sign of life for a second while a request is under
way: it answers the request with INTERNAL and frees its memory. The limit is a constant of the
Python backend (24.10: ``stub_launcher.cc``, ``ReceiveMessageFromStub``), and no option moves it.
When the process goes on, it works on memory that is not its own any more, and what it answers is
taken for the answer to the next request: mostly the process or the server aborts then, and nothing
rules out that one user gets what is another's. So a process that may have been given up has to end.

::

    the server      asks ──────── 1 s ────────▶ looks ──────── 1 s ────────▶ looks
    the process     · · · ────── stands still ──────────── · · · · · · ·
                    a sign each 0.3 s                      goes on

Given up is who shows no sign between two of these looks.
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
"""Shorter ones do no harm."""
_LOOKS_EACH_S: Final = 1.0
_SIGNS_EACH_S: Final = 0.3
_LATE_S: Final = 0.2
"""By how much the first sign after a standstill may be late, and a request on its way."""
_WAKING_S: Final = 0.5
"""In which a process that goes on has come to the request that waited for it."""


class Standstill(NamedTuple):
    """A time in which nothing of a process ran; it began at ``began`` or up to a beat later."""

    began: float
    ended: float

    def is_fatal(self, asked_from: float, asked_until: float) -> bool:
        """Tell whether the server may have looked in vain.

        Args:
            asked_from: The earliest that the server sent the request under way.
            asked_until: The latest.
        """
        # Some look falls into (first, last], and the one before it too late for a sign.
        first = self.began - _SIGNS_EACH_S
        last = self.ended - _LOOKS_EACH_S + _LATE_S
        looks_before = math.floor((last - asked_from) / _LOOKS_EACH_S)
        return last > first and looks_before >= 0 and looks_before > first - asked_until


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a function that tells the CPU time of the calling thread, from any thread."""
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


class Heartbeat:
    """A thread that beats ten times a second; make it in the thread that works on requests.

    Args:
        clock: Seconds, rising.
        work_clock: CPU seconds of the thread that works: while it computes, it may keep this one
            from beating, and does not stand still.
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
        """Begin to beat."""
        self._last = (self._clock(), self._work_clock())
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10 * _BEAT_S)

    def beat(self) -> None:
        """Note the time, and a standstill where too much of it has passed since the last beat."""
        self._standstills.extend(self._since_the_last_beat())
        self._last = (self._clock(), self._work_clock())

    def is_given_up(self, began: float | None = None) -> bool:
        """Tell whether the server may have given the process up over the request under way.

        Args:
            began: When work on it began; None where it is about to: then the request may have
                waited for the process to go on.
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
