"""Decides which users are due for a new forecast.

A user is due if their history changed or their forecast has expired. A history has changed if its
last event is newer than the one known to the last forecast, or if an event came late: it lies
before that forecast and was missing when it was made. To notice late events, a forecast stores a
digest of the events in the days before it. The digest does not depend on the order of events, and
ignores older ones, which a log may drop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

import pyarrow as pa

from adprior_bulk.inputs.shard_users import ShardUser
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules by which a run chooses users.

    Attributes:
        as_of: The run's time, in UTC; with events, the time of its forecasts.
        max_age: Forecasts expire at this age.
        lateness: How far before a forecast the next run looks for late events. A user with an
            even later one is due again when the forecast expires.
        bundle_id: The bundle that forecasts.
        top_k: Advertisers per forecast; None for the bundle's default.
        interest_k: Interests per forecast; None for none.
        everyone: Whether every user is due.
        shards: Number of shards; users are assigned by a hash of their id.
    """

    as_of: datetime
    max_age: timedelta
    lateness: timedelta
    bundle_id: str
    top_k: int | None = None
    interest_k: int | None = None
    everyone: bool = False
    shards: int = 1

    @property
    def date(self) -> date:
        """The partition that the run writes."""
        return self.as_of.date()


class Due(StrEnum):
    """The reason why a user is due; ``NO`` if they are not."""

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
    """A user's last forecast, without its result.

    Attributes:
        as_of: Its time.
        bundle_id: Its bundle.
        last_activity: Time of the last event known then, None without any.
        expires_at: When it expires.
        counted_from: Start of the period of ``events_digest``; its end is ``as_of``.
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
        """Return each user's row number in a table of forecasts, and the forecast."""
        columns = [table[name].to_pylist() for name in _COLUMNS]
        return {
            user_id: (row, cls(**dict(zip(_COLUMNS[1:], values, strict=True))))
            for row, (user_id, *values) in enumerate(zip(*columns, strict=True))
        }


def why_due(user: ShardUser, previous: Previous | None, rules: Rules) -> Due:
    """Return why a user is due; a context older than the last forecast needs no new one."""
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
    return _why_due_by_events(user, previous)


def _why_due_by_events(user: ShardUser, previous: Previous) -> Due:
    last = user.last_activity
    if last is not None and (previous.last_activity is None or last > previous.last_activity):
        return Due.NEW_EVENTS
    found = events_digest(user.events_between(previous.counted_from, previous.as_of))
    return Due.NO if found == previous.events_digest else Due.LATE_EVENTS


def events_digest(events: Iterable[Event]) -> int:
    """Return the sum of the events' hashes as a signed 64-bit integer."""
    total = sum(map(_event_hash, events)) & (2**64 - 1)
    return total - 2**64 if total >= 2**63 else total


def _event_hash(event: Event) -> int:
    fields = (event.time.isoformat(), event.action, event.advertiser, event.category, event.text)
    return int.from_bytes(hashlib.blake2b(repr(fields).encode(), digest_size=8).digest(), "big")
