"""When a stored forecast was made, and which times of it are not believed.

A forecast from the future would count as new for ever, and hide the fresh ones of its user. So who
writes, publishes or reads stored forecasts refuses those that lie further ahead than clocks differ.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["CLOCK_SKEW", "is_from_future", "latest_us"]

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Clocks of machines that work together differ by no more."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def is_from_future(made_at: datetime) -> bool:
    """Return whether a forecast's time, with its zone, lies ahead of our clock and any skew."""
    return made_at > _latest()


def latest_us() -> int:
    """Return the latest time that is believed now, in microseconds since 1970."""
    return (_latest() - _EPOCH) // _MICROSECOND


def _latest() -> datetime:
    return datetime.now(UTC) + CLOCK_SKEW
