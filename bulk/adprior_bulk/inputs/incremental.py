"""Which users are done again: those whose history changed, or whose forecast no longer holds.

A history has changed when its last event is newer than the one forecast with, or when an event came
late: one that lies before the forecast and was not there when it was made. For that a forecast
keeps a digest of the events of some days before it. The digest does not depend on the order of
events, and events that a log has let go since, before those days, do not touch it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import pyarrow as pa

from adprior_bulk.run.settings import Rules
from adprior_client.stored.forecast_time import is_from_future
from adprior_runtime.prompt.context import Event

_COLUMNS: Final = (
    "user_id",
    "as_of",
    "bundle_id",
    "last_activity",
    "expires_at",
    "counted_from",
    "events_digest",
)


class Due(StrEnum):
    """Why a user is done, or not."""

    NEW_USER = "new_user"
    NEW_EVENTS = "new_events"
    LATE_EVENTS = "late_events"
    EXPIRED = "expired"
    NEW_BUNDLE = "new_bundle"
    FROM_FUTURE = "from_future"
    ASKED = "asked"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What is kept of a user's last forecast.

    Attributes:
        as_of: The time it was for.
        bundle_id: The bundle that made it.
        last_activity: The last event then, None without any.
        expires_at: From then on it is made anew.
        counted_from: Start of what the digest covers; its end is ``as_of``.
        events_digest: See `events_digest`.
    """

    as_of: datetime
    bundle_id: str
    last_activity: datetime | None
    expires_at: datetime
    counted_from: datetime
    events_digest: int

    @classmethod
    def by_user(cls, table: pa.Table) -> dict[str, tuple[int, Previous]]:
        """Return each user's row in a table of forecasts, and what is kept of it."""
        columns = [table[name].to_pylist() for name in _COLUMNS]
        return {
            user_id: (row, cls(**dict(zip(_COLUMNS[1:], values, strict=True))))
            for row, (user_id, *values) in enumerate(zip(*columns, strict=True))
        }


class _Candidate(Protocol):
    """See `adprior_bulk.inputs.candidates.Candidate`."""

    @property
    def as_of(self) -> datetime: ...

    @property
    def last_activity(self) -> datetime | None: ...

    def digest(self, start: datetime, end: datetime) -> int: ...


def why_due(user: _Candidate, previous: Previous | None, rules: Rules) -> Due:
    """Tell whether a user is done, and why; one from before the last forecast is not."""
    if previous is None:
        return Due.NEW_USER
    if is_from_future(previous.as_of):
        return Due.FROM_FUTURE
    if user.as_of < previous.as_of:
        return Due.NO
    for due, holds in (
        (Due.ASKED, rules.everyone),
        (Due.NEW_BUNDLE, previous.bundle_id != rules.bundle_id),
        (Due.EXPIRED, user.as_of >= previous.expires_at),
    ):
        if holds:
            return due
    return _news(user, previous)


def _news(user: _Candidate, previous: Previous) -> Due:
    last = user.last_activity
    if last is not None and (previous.last_activity is None or last > previous.last_activity):
        return Due.NEW_EVENTS
    found = user.digest(previous.counted_from, previous.as_of)
    return Due.NO if found == previous.events_digest else Due.LATE_EVENTS


def events_digest(history: Sequence[Event], start: datetime, end: datetime) -> int:
    """Return a signed 64-bit sum of the events' hashes, of those from ``start`` to ``end``."""
    first = bisect_left(history, start, key=lambda event: event.time)
    stop = bisect_right(history, end, key=lambda event: event.time)
    total = sum(_event_hash(event) for event in history[first:stop]) & (2**64 - 1)
    return total - 2**64 if total >= 2**63 else total


def _event_hash(event: Event) -> int:
    fields = (event.time.isoformat(), event.action, event.advertiser, event.category, event.text)
    return int.from_bytes(hashlib.blake2b(repr(fields).encode(), digest_size=8).digest(), "big")
