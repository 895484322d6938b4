"""Counts what is in a log: users, days, advertisers, repeated rows, profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_build.catalogue.catalogue_file import MIN_USERS
from adprior_build.data.event_table import EventTable
from adprior_build.inspection.coded_log import CodedLog, day_of

_Int64Array = npt.NDArray[np.int64]

_SHOWN_ACTIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """Counts of a log; see `CodedLog`.

    Attributes:
        events: Usable rows.
        unusable: Rows without a user or a readable time, which `adprior train` refuses.
        users: Users.
        single: Users with one event.
        median_events: Median number of a user's events.
        most_events: Largest number of a user's events.
        days: Different days.
        first_day, last_day: Days in ISO 8601, empty without events.
        advertisers: Different advertisers.
        listed: Those with events of at least `MIN_USERS` users.
        without_advertiser: Events that name none.
        repeated_dropped, repeated_kept: Rows that repeat another in every column.
        actions: Events by action, the most frequent ones.
        with_profile: Users with a profile; None without profiles.
        profiles: Users of the profiles; None without profiles.
    """

    events: int
    unusable: int
    users: int
    single: int
    median_events: float
    most_events: int
    days: int
    first_day: str
    last_day: str
    advertisers: int
    listed: int
    without_advertiser: int
    repeated_dropped: int
    repeated_kept: int
    actions: dict[str, int]
    with_profile: int | None = None
    profiles: int | None = None

    @classmethod
    def of(cls, coded: CodedLog, log: EventTable, profiles: Mapping[str, Any] | None) -> LogFacts:
        """Count a log; ``profiles`` are those by user, None without."""
        events = np.bincount(coded.user, minlength=len(coded.users))
        known = coded.advertiser >= 0
        pairs = np.unique(np.stack([coded.advertiser[known], coded.user[known]]), axis=1)
        users_of = np.bincount(pairs[0], minlength=len(coded.names))
        named = int((users_of > 0).sum())
        joined = None if profiles is None else sum(user in profiles for user in coded.users)
        return cls(
            events=len(coded.user),
            unusable=len(coded.unusable.rows),
            users=len(coded.users),
            single=int((events == 1).sum()),
            median_events=float(np.median(events)) if len(events) else 0.0,
            most_events=int(events.max(initial=0)),
            days=len(np.unique(coded.day)),
            first_day=day_of(coded.day.min()).isoformat() if len(coded.day) else "",
            last_day=day_of(coded.day.max()).isoformat() if len(coded.day) else "",
            advertisers=named,
            listed=int((users_of >= MIN_USERS).sum()),
            without_advertiser=int((~known).sum()),
            repeated_dropped=log.repeated_dropped,
            repeated_kept=log.repeated_kept,
            actions=_count_actions(coded.table),
            with_profile=joined,
            profiles=None if profiles is None else len(profiles),
        )


def _count_actions(table: pa.Table) -> dict[str, int]:
    if "action" not in table.column_names:
        return {}
    counts = table["action"].drop_null().value_counts().to_pylist()
    counts.sort(key=lambda each: -each["counts"])
    return {each["values"]: each["counts"] for each in counts[:_SHOWN_ACTIONS]}
