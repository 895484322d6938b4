"""A circuit breaker: stop asking a server that fails, and find out when it is back.

::

    closed ──failures in a row──▶ open ──reset_s over, and no failing health check──▶ half-open
       ▲                           ▲                                                   │
       └───────────success─────────┼───────────────────one trial call──────────────────┤
                                   └───────────────────failure─────────────────────────┘
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Of one server; threads may share it.

    Args:
        failures: In a row, of calls and health checks, that open it.
        reset_s: For how long it stays open at least.
        clock: Seconds, rising.
    """

    def __init__(self, failures: int, reset_s: float, clock: Callable[[], float]) -> None:
        self._most = failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._trial_until = 0.0
        self._is_ready = True

    @property
    def is_open(self) -> bool:
        """Whether calls are kept away, trials apart."""
        return self._opened_at is not None

    def admits(self) -> bool:
        """Tell whether a call may be made; half-open, only one at a time.

        Who is let in must say how it went: `succeed`, `fail` or `withdraw`.
        """
        with self._lock:
            if self._opened_at is None:
                return True
            now = self._clock()
            if not self._is_ready or now < self._opened_at + self._reset_s:
                return False
            if now < self._trial_until:
                return False
            self._trial_until = now + self._reset_s  # whoever never reports is not waited for
            return True

    def succeed(self) -> None:
        """A call went well."""
        with self._lock:
            self._failures, self._opened_at, self._trial_until = 0, None, 0.0
            self._is_ready = True

    def fail(self) -> None:
        """A call failed by the server's fault."""
        with self._lock:
            self._count_failure()

    def withdraw(self) -> None:
        """A call ended without saying anything of the server."""
        with self._lock:
            self._trial_until = 0.0

    def check(self, *, is_ready: bool) -> None:
        """A health check went well, or failed, which counts as a failed call."""
        with self._lock:
            self._is_ready = is_ready
            if not is_ready:
                self._count_failure()

    def _count_failure(self) -> None:
        self._failures += 1
        self._trial_until = 0.0
        if self._failures >= self._most or self._opened_at is not None:
            self._opened_at = self._clock()
