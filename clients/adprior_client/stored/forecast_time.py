"""Checks that a stored forecast's time is not in the future.

A forecast from the future would count as new for ever, and hide the user's later forecasts. So
writers, publishers and readers of stored forecasts refuse it; they allow for a small difference of
clocks. A forecast for a bare date has that day's last instant as its time: it is accepted once the
day has begun.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Largest difference between the clocks of cooperating machines."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 24 * 3600 * 1_000_000
_LAST_US: Final = 1000
"""The last millisecond of a day: some tools store no finer times."""


def is_from_future(made_at: datetime) -> bool:
    """Return whether a forecast's time (with a zone) is in the future."""
    return not are_not_in_future((made_at - _EPOCH) // _MICROSECOND)


def are_not_in_future(made_at_us: Any, now: datetime | None = None) -> Any:
    """Return whether forecasts' times are not in the future.

    Args:
        made_at_us: Microseconds since 1970: an integer, or an array of int64.
        now: The current time; the clock's by default.

    Returns:
        A bool, or an array of bools.
    """
    since_midnight = made_at_us % _DAY_US
    earliest = made_at_us - since_midnight * (since_midnight >= _DAY_US - _LAST_US)
    latest = (datetime.now(UTC) if now is None else now) + CLOCK_SKEW
    return earliest <= (latest - _EPOCH) // _MICROSECOND
