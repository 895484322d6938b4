"""Event logs of any shape, read through a column map into one history per user."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.profiles import Profiles, note_profiles, note_unmatched, read_profiles
from adprior_build.data.repeated_rows import (
    choose_dropped,
    find_repeated,
    note_repeated,
    row_digests,
)
from adprior_build.data.tables import read_table
from adprior_build.data.text_columns import (
    advertiser_column,
    id_column,
    text_column,
)
from adprior_build.data.time_columns import prepare_times
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, parse_time
from adprior_runtime.terminal.progress import track


@dataclass(frozen=True, slots=True, kw_only=True)
class UserHistory:
    """One user's profile and whole history, oldest event first.

    Attributes:
        user_id: The user.
        profile: The keys and values that prompts may show.
        events: The history.
        items: The item of each event, empty if it has none or the log has no such column.
        covered: Whether the profiles say that the log holds nearly all of the user's events.
    """

    user_id: str
    profile: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()
    items: Sequence[str] = ()
    covered: bool = True

    def before(self, end: datetime) -> UserHistory:
        """Return the user with only the events before a moment."""
        stop = bisect_left(self.events, end, key=lambda event: event.time)
        return replace(self, events=self.events[:stop], items=self.items[:stop])


def _say(line: str) -> None:
    print(f"adprior: {line}", file=sys.stderr)


def read_users(
    events_path: Path,
    profiles_path: Path | None,
    columns: ColumnMap,
    *,
    say: Callable[[str], None] = _say,
) -> list[UserHistory]:
    """Read users with at least one event, ordered by id, their events ordered by time.

    Args:
        events_path: The event log.
        profiles_path: The profiles, if any.
        columns: The names of their columns.
        say: Reports one line about the files; by default on standard error.

    Raises:
        InvalidInputError: A file or column is missing, a row is wrong (the message names it), or no
            user of the events has a profile.
    """
    profiles = _read_profiles(profiles_path, columns, say)
    histories: dict[str, list[tuple[Event, str]]] = {}
    for user_id, event, item in _read_events(events_path, columns.events, say):
        histories.setdefault(user_id, []).append((event, item))
    if profiles_path is not None and histories:
        without = sum(user not in profiles.by_user for user in histories)
        _check_matches(profiles_path, events_path, len(histories), without, say)
    users = []
    for user_id in track(sorted(histories), desc="ordering histories", unit="user", leave=False):
        events, items = zip(*sorted(histories[user_id], key=lambda row: row[0].time), strict=True)
        users.append(
            UserHistory(
                user_id=user_id,
                profile=profiles.by_user.get(user_id, {}),
                events=events,
                items=items,
                covered=user_id not in profiles.uncovered,
            )
        )
    return users


def _check_matches(
    profiles: Path, events: Path, users: int, without: int, say: Callable[[str], None]
) -> None:
    """Refuse profiles that match no user; report those that match few."""
    if without == users:
        raise InvalidInputError(
            f"{profiles}: none of the {users:,} users of {events} has a profile; are ids written "
            "the same way in both, and does the column map name the right user columns?"
        )
    for note in note_unmatched(str(profiles), users=users, without=without):
        say(note)


def name_advertisers(
    users: Sequence[UserHistory], advertiser_ids: Sequence[int], names: Sequence[str]
) -> list[UserHistory]:
    """Replace ids in the advertiser column (``#17``) by the catalogue's names."""
    by_id = {f"#{key}": name for key, name in zip(advertiser_ids, names, strict=True)}

    def named(event: Event) -> Event:
        name = by_id.get(event.advertiser or "")
        return event if name is None else replace(event, advertiser=name)

    return [
        replace(user, events=tuple(map(named, user.events)))
        for user in track(users, desc="naming advertisers", unit="user", leave=False)
    ]


def all_are_ids(users: Sequence[UserHistory]) -> bool:
    """Tell whether the advertiser column holds only ids (``#17``), no names."""
    names = [event.advertiser for user in users for event in user.events if event.advertiser]
    return bool(names) and all(name[0] == "#" and name[1:].lstrip("-").isdigit() for name in names)


def prepare_events(
    table: pa.Table, columns: EventColumns, place: str, *, is_csv: bool = False
) -> pa.Table:
    """Return a log's columns as texts, named by their roles: ``user``, ``time`` and so on.

    Text times stay text, other times become UTC; ``day_alone`` tells which times name only a day.

    Args:
        table: The log, its text checked to be UTF-8.
        columns: The names of its columns.
        place: The file, for errors.
        is_csv: Whether all columns are text because the file is CSV.

    Raises:
        InvalidInputError: A column's type has no text, or holds no ids or no times.
    """
    found = {}
    for role, name in columns.named().items():
        column = table[name]
        if role == "time":
            where = f"{place}: column {name}"
            found["day_alone"], found["time"] = prepare_times(column, columns.time_unit, where)
        elif role == "user":
            found[role] = id_column(column, place, name)
        elif role == "advertiser":
            found[role] = advertiser_column(column, place, name, is_csv=is_csv)
        else:
            found[role] = text_column(column, place, name)
    return pa.table(found)


def event_rows(
    table: pa.Table, columns: EventColumns, place: str
) -> Iterator[tuple[str, Event, str]]:
    """Yield the user, event and item of each row of a prepared table.

    Raises:
        InvalidInputError: A row is wrong; the message names ``place`` and the row, counted from 0.
    """
    values = {name: table[name].to_pylist() for name in columns.named() if name != "time"}
    if pa.types.is_timestamp(table["time"].type):
        # A time beyond Python's calendar becomes a number here, which `_moment` refuses.
        values["time"] = table["time"].to_numpy().tolist()
    else:
        values["time"] = table["time"].to_pylist()
    texts = [name for name in ("advertiser", "category", "text") if name in values]
    actions, items = values.get("action"), values.get("item")
    for row, (user, moment) in enumerate(zip(values["user"], values["time"], strict=True)):
        if user is None or moment is None or moment == "":
            raise InvalidInputError(f"{place}: row {row} has no user or no time")
        event = Event(
            time=_moment(moment, place, row),
            action=(actions and actions[row]) or columns.default_action,
            **{name: values[name][row] for name in texts},
        )
        yield user, event, (items and items[row]) or ""


def _moment(value: Any, place: str, row: int) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, int):
        raise InvalidInputError(
            f"{place}: row {row}: the time lies beyond the calendar; check its unit (time_unit)"
        )
    try:
        return parse_time(value, "time")
    except InvalidRequestError as error:
        raise InvalidInputError(f"{place}: row {row}: {error}") from error


def _read_events(
    path: Path, columns: EventColumns, say: Callable[[str], None]
) -> Iterator[tuple[str, Event, str]]:
    """Yield the user, event and item of each row, without the repeated rows that are dropped."""
    table = read_table(path, columns.required(), all_text=True)
    repeated = find_repeated(row_digests(table))
    prepared = prepare_events(table, columns, str(path), is_csv=path.suffix == ".csv")
    dropped = choose_dropped(repeated, np.asarray(prepared["day_alone"].to_numpy()), columns)
    rows = track(
        event_rows(prepared, columns, str(path)),
        desc=f"reading {path.name}",
        unit="row",
        total=prepared.num_rows,
        leave=False,
    )
    yield from (found for found, is_dropped in zip(rows, dropped, strict=True) if not is_dropped)
    count = int(dropped.sum())
    for note in note_repeated(str(path), dropped=count, kept=int(repeated.sum()) - count):
        say(note)


def _read_profiles(path: Path | None, columns: ColumnMap, say: Callable[[str], None]) -> Profiles:
    if path is None:
        return Profiles()
    if columns.profiles is None:
        raise InvalidInputError(f"{path}: the column map has no table [profiles]")
    profiles = read_profiles(path, columns.profiles)
    for note in note_profiles(
        str(path),
        repeated_users=profiles.repeated_users,
        nameless_rows=profiles.nameless_rows,
    ):
        say(note)
    return profiles
