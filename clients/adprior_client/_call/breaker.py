"""A circuit breaker: stop asking a server that fails, and find out when it is back.

::

    closed ──failed calls in a row──▶ open ──after reset_s──▶ half-open
       ▲                               ▲                          │
       └────────────success────────────┼──────one trial call──────┤
                                       └──────────failure─────────┘

Health checks stand beside that: while they fail, no call is let in, however well the last one went.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_FAILED_CHECKS = 2
"""One may have been lost on its way."""


class CircuitBreaker:
    """Of one server; threads may share it.

    Args:
        failures: Of calls, in a row, that open it.
        reset_s: For how long it stays open at least.
        clock: Seconds, rising.
    """

    def __init__(self, failures: int, reset_s: float, clock: Callable[[], float]) -> None:
        self._most = failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_checks = 0
        self._opened_at: float | None = None
        self._trial_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are kept away, trials apart."""
        return self._opened_at is not None or not self._is_ready

    def admits(self) -> bool:
        """Tell whether a call may be made; half-open, only one at a time.

        Who is let in must say how it went: `succeed`, `fail` or `withdraw`.
        """
        with self._lock:
            if not self._is_ready:
                return False
            if self._opened_at is None:
                return True
            now = self._clock()
            if now < max(self._opened_at + self._reset_s, self._trial_until):
                return False
            self._trial_until = now + self._reset_s  # whoever never reports is not waited for
            return True

    def succeed(self) -> None:
        """A call went well."""
        with self._lock:
            self._failures, self._opened_at, self._trial_until = 0, None, 0.0

    def fail(self) -> None:
        """A call failed by the server's fault."""
        with self._lock:
            self._failures += 1
            self._trial_until = 0.0
            if self._failures >= self._most or self._opened_at is not None:
                self._opened_at = self._clock()

    def withdraw(self) -> None:
        """A call ended without saying anything of the server."""
        with self._lock:
            self._trial_until = 0.0

    def check(self, *, is_ready: bool) -> None:
        """A health check went well, or failed; so many failed ones in a row keep calls away."""
        with self._lock:
            self._failed_checks = 0 if is_ready else self._failed_checks + 1

    @property
    def _is_ready(self) -> bool:
        return self._failed_checks < _FAILED_CHECKS
