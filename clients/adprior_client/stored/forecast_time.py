"""When a stored forecast was made, and which times of it are not believed.

A forecast from the future would count as new for ever, and hide the fresh ones of its user. So who
writes, publishes or reads stored forecasts refuses those that lie further ahead than clocks differ.
A forecast for a bare date is as of that day's last instant: it is believed once the day has begun.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Clocks of machines that work together differ by no more."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 24 * 3600 * 1_000_000
_LAST_US: Final = 1000
"""A day's last instant, in the millisecond that is the finest that some tools store."""


def is_from_future(made_at: datetime) -> bool:
    """Return whether a forecast's time, with its zone, lies ahead of our clock and any skew."""
    return not are_believed((made_at - _EPOCH) // _MICROSECOND)


def are_believed(made_at_us: Any, now: datetime | None = None) -> Any:
    """Return whether forecasts' times do not lie ahead of our clock and any skew.

    Args:
        made_at_us: Microseconds since 1970: an integer, or an array of int64.
        now: What our clock says, where that is not to be asked.

    Returns:
        A bool, or an array of them.
    """
    since_midnight = made_at_us % _DAY_US
    came_at = made_at_us - since_midnight * (since_midnight >= _DAY_US - _LAST_US)
    latest = (datetime.now(UTC) if now is None else now) + CLOCK_SKEW
    return came_at <= (latest - _EPOCH) // _MICROSECOND
