"""A circuit breaker: stop asking a server that fails, and notice when it is back.

::

    closed ──failed calls in a row──▶ open ──after reset_s──▶ half-open
       ▲                               ▲                          │
       └────────────success────────────┼──────one trial call──────┤
                                       └──────────failure─────────┘

Health checks are independent of that: while they fail, no call is admitted, even if the last call
succeeded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_MAX_FAILED_CHECKS = 1
"""A single failed check may be a lost packet."""


class CircuitBreaker:
    """The breaker of one server; threads may share it.

    Args:
        failures: Failed calls in a row that open it.
        reset_s: Shortest time that it stays open.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, failures: int, reset_s: float, clock: Callable[[], float]) -> None:
        self._max_failures = failures
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_checks = 0
        self._opened_at: float | None = None
        self._trial_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are rejected, except trials."""
        return self._opened_at is not None or not self._is_ready

    def admits(self) -> bool:
        """Return whether a call may be made; half-open, only one at a time.

        The caller must report the outcome of an admitted call: `succeed`, `fail` or `withdraw`.
        """
        with self._lock:
            if not self._is_ready:
                return False
            if self._opened_at is None:
                return True
            now = self._clock()
            if now < max(self._opened_at + self._reset_s, self._trial_until):
                return False
            self._trial_until = now + self._reset_s  # in case its outcome is never reported
            return True

    def succeed(self) -> None:
        """Report a call that succeeded."""
        with self._lock:
            self._failures, self._opened_at, self._trial_until = 0, None, 0.0

    def fail(self) -> None:
        """Report a call that failed because of the server."""
        with self._lock:
            self._failures += 1
            self._trial_until = 0.0
            if self._failures >= self._max_failures or self._opened_at is not None:
                self._opened_at = self._clock()

    def withdraw(self) -> None:
        """Report a call whose outcome says nothing about the server."""
        with self._lock:
            self._trial_until = 0.0

    def check(self, *, is_ready: bool) -> None:
        """Report a health check; two failed ones in a row reject all calls until one succeeds."""
        with self._lock:
            self._failed_checks = 0 if is_ready else self._failed_checks + 1

    @property
    def _is_ready(self) -> bool:
        return self._failed_checks <= _MAX_FAILED_CHECKS
