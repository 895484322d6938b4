"""Makes users from a shard's events and profiles; their contexts are made only on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_table import event_rows
from adprior_build.data.profiles import Profiles, profile_rows
from adprior_build.data.repeated_rows import choose_dropped, find_repeated
from adprior_build.data.user_context import MOST_EVENTS, make_context
from adprior_bulk.inputs.preparation import ROW, USER, WRONG
from adprior_bulk.inputs.staging import rows_by_user
from adprior_client.user_context import CheckedContext
from adprior_runtime.errors import AdpriorError, InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, UserContext, parse_time

_Int64Array = npt.NDArray[np.int64]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = np.datetime64("0001-01-02")
_LAST: Final = np.datetime64("9999-12-30")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """A shard's events.

    Attributes:
        table: The staged rows.
        columns: Names of its columns.
        times: int64 [rows], microseconds since 1970.
        names: Advertiser names by ``#id``.
    """

    table: pa.Table
    columns: ColumnMap
    times: _Int64Array
    names: Mapping[str, str]

    def events(self, rows: _Int64Array) -> list[Event]:
        """Return events, oldest first; events of the same time keep the log's order."""
        ordered = rows[np.argsort(self.times[rows], kind="stable")]
        found = event_rows(self.table.take(pa.array(ordered)), self.columns.events, "events")
        return [self._named(event) for _, event, _ in found]

    def _named(self, event: Event) -> Event:
        name = self.names.get(event.advertiser or "")
        return event if name is None else replace(event, advertiser=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledUser:
    """A user made from rows of a log; its methods raise `AdpriorError` for malformed rows.

    Attributes:
        as_of: The forecast's time.
        profile: The user's profile.
        log: The shard's events.
        rows: int64, at least one: the user's rows before ``as_of``, in the log's order.
    """

    as_of: datetime
    profile: Mapping[str, str]
    log: _Log
    rows: _Int64Array

    @property
    def last_activity(self) -> datetime | None:
        """The time of the last event before ``as_of``."""
        return _EPOCH + timedelta(microseconds=int(self.log.times[self.rows].max()))

    def events_between(self, start: datetime, end: datetime) -> list[Event]:
        """Return the user's events from ``start`` to ``end``; reads no others."""
        times = self.log.times[self.rows]
        inside = (times >= _microseconds(start)) & (times <= _microseconds(end))
        return self.log.events(self.rows[inside])

    def context(self) -> tuple[CheckedContext, UserContext]:
        """Return the context, as JSON and parsed, with the newest events that a server accepts."""
        newest = np.argsort(self.log.times[self.rows], kind="stable")[-MOST_EVENTS:]
        events = self.log.events(self.rows[np.sort(newest)])
        raw, parsed = make_context(self.profile, events, self.as_of)
        return CheckedContext(raw), parsed


def assemble(
    events: pa.Table,
    profiles: pa.Table | None,
    columns: ColumnMap,
    names: Mapping[str, str],
    as_of: datetime,
    counts: Counter[str],
) -> Iterator[tuple[str | None, AssembledUser | AdpriorError]]:
    """Yield the users with an event before a time, sorted by id.

    Args:
        events: Staged rows of the log.
        profiles: Staged rows of the profiles; the last row of each user is used.
        columns: Names of their columns.
        names: Advertiser names by ``#id``.
        as_of: The time.
        counts: Updated with ``repeated_dropped`` and ``repeated_kept`` rows, ``profiles_repeated``
            and ``profiles_nameless`` profiles, ``active_users``, and users ``without_profile``.
    """
    known = Profiles() if profiles is None else Profiles.of(profile_rows(profiles))
    wrong_profiles = {} if profiles is None else _wrong_users(profiles)
    counts.update(profiles_repeated=known.repeated_users, profiles_nameless=known.nameless_rows)
    table = events.combine_chunks()
    times, wrong = _read_times(table["time"])
    wrong |= {row: found for row, found in enumerate(table[WRONG].to_pylist()) if found is not None}
    is_dropped = _dropped_rows(table, columns, counts)
    log = _Log(table=table, columns=columns, times=times, names=names)
    end = _microseconds(as_of)
    for user_id, rows in rows_by_user(table):
        mine = rows[~is_dropped[rows]]
        if user_id is None:
            user = columns.events.user
            yield None, InvalidInputError(f"events: {len(mine)} rows without {user}")
        elif wrong and (bad := [row for row in mine.tolist() if row in wrong]):
            yield user_id, InvalidInputError(wrong[bad[0]])
        elif len(before := mine[times[mine] < end]):
            counts["active_users"] += 1
            counts["without_profile"] += profiles is not None and user_id not in known.by_user
            if user_id in wrong_profiles:
                yield user_id, InvalidInputError(wrong_profiles[user_id])
                continue
            profile = known.by_user.get(user_id, {})
            yield user_id, AssembledUser(as_of=as_of, profile=profile, log=log, rows=before)


def _dropped_rows(
    table: pa.Table, columns: ColumnMap, counts: Counter[str]
) -> npt.NDArray[np.bool_]:
    """Return which rows are dropped as repeats of another, as in training; count them."""
    repeated = find_repeated(np.stack([table[name].to_numpy() for name in ROW], axis=1))
    dropped = choose_dropped(repeated, table["day_alone"].to_numpy(), columns.events)
    counts["repeated_dropped"] += int(dropped.sum())
    counts["repeated_kept"] += int(repeated.sum() - dropped.sum())
    return dropped


def _wrong_users(profiles: pa.Table) -> dict[str, str]:
    """Return what is wrong with the last row of each user."""
    users, wrong = profiles[USER].to_pylist(), profiles[WRONG].to_pylist()
    last = dict(zip(users, wrong, strict=True))
    return {user: found for user, found in last.items() if user and found is not None}


def _read_times(column: pa.ChunkedArray) -> tuple[_Int64Array, dict[int, str]]:
    """Return times in microseconds since 1970, and an error for each row without a usable time."""
    wrong: dict[int, str] = {}
    if not pa.types.is_timestamp(column.type):
        found = []
        for row, value in enumerate(column.to_pylist()):
            try:
                found.append(parse_time(value, "time"))
            except InvalidRequestError as error:
                wrong[row] = "events: a row has no time" if value is None else f"events: {error}"
                found.append(_EPOCH)
        return np.array([_microseconds(moment) for moment in found], dtype=np.int64), wrong
    times = np.array(column.to_numpy())  # in UTC
    beyond = (times < _FIRST) | (times > _LAST)
    for row in np.flatnonzero(np.isnat(times) | beyond).tolist():
        is_null = bool(np.isnat(times[row]))
        wrong[row] = (
            "events: a row has no time" if is_null else "events: a time beyond the calendar"
        )
        times[row] = 0
    return times.astype("datetime64[us]").astype(np.int64), wrong


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
