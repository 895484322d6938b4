"""From a shard's events and profiles to users, whose contexts are made when they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_build.column_map import ColumnMap
from adprior_build.event_log import event_rows, prepare_events, profile_rows
from adprior_bulk.incremental import events_digest
from adprior_bulk.staging import USER, WRONG, rows_by_user
from adprior_runtime.context import Event, UserContext, parse_context, parse_time
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import AdpriorError, InvalidInputError, InvalidRequestError
from adprior_runtime.json_text import to_json

__all__ = ["AssembledUser", "assemble", "context_json"]

_Int64Array = npt.NDArray[np.int64]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_EVENT: Final = '{"time":"2024-01-01T00:00:00+00:00","action":""},'
_MOST_EVENTS: Final = MAX_CONTEXT_BYTES // len(_LEAST_EVENT) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """A shard's events.

    Attributes:
        table: Prepared.
        columns: What its columns are called.
        times: int64 [rows], microseconds since 1970.
        wrong: What is wrong with a row, by its number.
        names: Names of advertisers by ``#id``.
    """

    table: pa.Table
    columns: ColumnMap
    times: _Int64Array
    wrong: Mapping[int, str]
    names: Mapping[str, str]

    def events(self, rows: _Int64Array) -> list[Event]:
        """Return events, oldest first, those of one time in the log's order."""
        ordered = rows[np.argsort(self.times[rows], kind="stable")]
        found = event_rows(self.table.take(pa.array(ordered)), self.columns.events, "events")
        return [self._named(event) for _, event, _ in found]

    def _named(self, event: Event) -> Event:
        name = self.names.get(event.advertiser or "")
        return event if name is None else replace(event, advertiser=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledUser:
    """A user made of rows of a log; see `adprior_bulk.candidates.Candidate`.

    Attributes:
        as_of: The forecast's time.
        profile: What prompts may show.
        log: The shard's.
        rows: int64, at least one: the user's, before ``as_of``, in the log's order.
    """

    as_of: datetime
    profile: Mapping[str, str]
    log: _Log
    rows: _Int64Array

    @property
    def last_activity(self) -> datetime | None:
        """The last event before ``as_of``."""
        return _EPOCH + timedelta(microseconds=int(self.log.times[self.rows].max()))

    def digest(self, start: datetime, end: datetime) -> int:
        """Return `events_digest` of the user's events; reads no others."""
        times = self.log.times[self.rows]
        inside = (times >= _microseconds(start)) & (times <= _microseconds(end))
        return events_digest(self.log.events(self.rows[inside]), start, end)

    def context(self) -> tuple[bytes, UserContext]:
        """Return the context: of the newest events, what a server takes."""
        newest = np.argsort(self.log.times[self.rows], kind="stable")[-_MOST_EVENTS:]
        raw = context_json(self.profile, self.log.events(self.rows[np.sort(newest)]), self.as_of)
        return raw, parse_context(raw)


def assemble(
    events: pa.Table,
    profiles: pa.Table | None,
    columns: ColumnMap,
    names: Mapping[str, str],
    as_of: datetime,
) -> Iterator[tuple[str | None, AssembledUser | AdpriorError]]:
    """Yield the users who did something before a time, by id.

    Args:
        events: Staged rows of the log.
        profiles: Staged rows of the profiles; of a user who comes twice, the last.
        columns: What their columns are called.
        names: Names of advertisers by ``#id``.
        as_of: The time.
    """
    told: dict[str, dict[str, str]] = {}
    if profiles is not None and columns.profiles is not None:
        rows = profile_rows(profiles.drop_columns([USER, WRONG]), columns.profiles)
        told = {user: profile for user, profile, _ in rows}
    table = prepare_events(events, columns.events).combine_chunks()
    times, wrong = _read_times(table[columns.events.time])
    told_wrong = table[WRONG].combine_chunks()
    for row in np.flatnonzero(told_wrong.is_valid().to_numpy(zero_copy_only=False)).tolist():
        wrong[row] = told_wrong[row].as_py()
    log = _Log(table=table, columns=columns, times=times, wrong=wrong, names=names)
    end = _microseconds(as_of)
    for user_id, mine in rows_by_user(table):
        if user_id is None:
            user = columns.events.user
            yield None, InvalidInputError(f"events: {len(mine)} rows without {user}")
        elif wrong and (bad := [row for row in mine.tolist() if row in wrong]):
            yield user_id, InvalidInputError(wrong[bad[0]])
        elif len(before := mine[times[mine] < end]):
            profile = told.get(user_id, {})
            yield user_id, AssembledUser(as_of=as_of, profile=profile, log=log, rows=before)


def context_json(profile: Mapping[str, str], events: list[Event], as_of: datetime) -> bytes:
    """Return a context's JSON with the newest events that fit a server's size limit."""
    start = _dump({"profile": dict(profile), "as_of": as_of.isoformat()})
    room = MAX_CONTEXT_BYTES - len(start) - len(',"history":[]')
    newest: list[bytes] = []
    for event in reversed(events):
        document = _dump(_event_document(event))
        room -= len(document) + 1
        if room < 0:
            break
        newest.append(document)
    return start[:-1] + b',"history":[' + b",".join(reversed(newest)) + b"]}"


def _read_times(column: pa.ChunkedArray) -> tuple[_Int64Array, dict[int, str]]:
    """Return times in microseconds since 1970, and what is wrong with rows that have none."""
    wrong: dict[int, str] = {}
    kind = column.type
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        found = []
        for row, value in enumerate(column.to_pylist()):
            try:
                found.append(parse_time(value, "time"))
            except InvalidRequestError as error:
                wrong[row] = f"events: {error}"
                found.append(_EPOCH)
        return np.array([_microseconds(moment) for moment in found], dtype=np.int64), wrong
    # Without a zone a time is taken as UTC, as everywhere.
    zone = getattr(kind, "tz", None)
    times = column.cast(pa.timestamp("us", zone), safe=False).combine_chunks()
    nulls = np.flatnonzero(times.is_null().to_numpy(zero_copy_only=False))
    wrong = {int(row): "events: a row has no time" for row in nulls}
    return times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), wrong


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _event_document(event: Event) -> dict[str, Any]:
    texts = {name: getattr(event, name) for name in ("advertiser", "category", "text")}
    given = {name: value for name, value in texts.items() if value is not None}
    return {"time": event.time.isoformat(), "action": event.action} | given


def _dump(document: dict[str, Any]) -> bytes:
    return to_json(document, ensure_ascii=False, separators=(",", ":")).encode()
