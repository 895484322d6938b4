"""Event logs and profiles of any shape, read through a column map."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from adprior_build.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.tables import read_table
from adprior_runtime.context import Event, parse_time
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.spelling import even_out

__all__ = [
    "ColumnMap",
    "EventColumns",
    "ProfileColumns",
    "Split",
    "UserHistory",
    "all_are_ids",
    "event_rows",
    "name_advertisers",
    "prepare_events",
    "profile_rows",
    "read_users",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserHistory:
    """One user's profile and whole history, oldest first.

    Attributes:
        user_id: Whose.
        profile: What prompts may show.
        events: The history.
        items: The item of each event, empty where it has none or the log has no such column.
        covered: Whether the log is said to hold nearly all of the user's events.
    """

    user_id: str
    profile: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()
    items: Sequence[str] = ()
    covered: bool = True

    def before(self, end: datetime) -> UserHistory:
        """Return the user with the events before a moment only."""
        stop = bisect_left(self.events, end, key=lambda event: event.time)
        return replace(self, events=self.events[:stop], items=self.items[:stop])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who is trained on, until when.

    Attributes:
        cut: Training sees events strictly before this day; test cases lie on it or after.
        test_share: Share of users, chosen by a hash of their id, that training never sees.
        salt: Goes into that hash.
    """

    cut: date | None = None
    test_share: float = 0.0
    salt: str = "adprior"

    def is_test_user(self, user_id: str) -> bool:
        """Tell whether a user is kept from training; the same on every machine."""
        digest = hashlib.blake2b(f"{self.salt}\0{user_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.test_share * 2**64

    def training_part(self, users: Sequence[UserHistory]) -> list[UserHistory]:
        """Return the training users with their events before the cut."""
        kept = [user for user in users if not self.is_test_user(user.user_id)]
        if self.cut is None:
            return kept
        end = datetime.combine(self.cut, time(), tzinfo=UTC)
        return [user.before(end) for user in kept]


def read_users(
    events_path: Path, profiles_path: Path | None, columns: ColumnMap
) -> list[UserHistory]:
    """Read users with at least one event, ordered by id, their events by time.

    Raises:
        InvalidInputError: A file or column is missing, or a row is wrong; the row is named.
    """
    profiles, uncovered = _read_profiles(profiles_path, columns)
    histories: dict[str, list[tuple[Event, str]]] = {}
    for user_id, event, item in _read_events(events_path, columns.events):
        histories.setdefault(user_id, []).append((event, item))
    users = []
    for user_id in sorted(histories):
        events, items = zip(*sorted(histories[user_id], key=lambda row: row[0].time), strict=True)
        users.append(
            UserHistory(
                user_id=user_id,
                profile=profiles.get(user_id, {}),
                events=events,
                items=items,
                covered=user_id not in uncovered,
            )
        )
    return users


def name_advertisers(
    users: Sequence[UserHistory], advertiser_ids: Sequence[int], names: Sequence[str]
) -> list[UserHistory]:
    """Replace ids in the advertiser column (``#17``) by the catalogue's names."""
    by_id = {f"#{key}": name for key, name in zip(advertiser_ids, names, strict=True)}
    return [
        replace(
            user,
            events=tuple(
                replace(event, advertiser=by_id.get(event.advertiser or "", event.advertiser))
                for event in user.events
            ),
        )
        for user in users
    ]


def all_are_ids(users: Sequence[UserHistory]) -> bool:
    """Tell whether the advertiser column held ids (``#17``) and no names."""
    names = [event.advertiser for user in users for event in user.events if event.advertiser]
    return bool(names) and all(name[0] == "#" and name[1:].lstrip("-").isdigit() for name in names)


def prepare_events(table: pa.Table, columns: EventColumns) -> pa.Table:
    """Return a log's table with advertisers as text and times that Python's fit."""
    if pa.types.is_integer(table[columns.advertiser].type):
        ids = [None if i is None else f"#{i}" for i in table[columns.advertiser].to_pylist()]
        position = table.column_names.index(columns.advertiser)
        table = table.set_column(position, columns.advertiser, pa.array(ids, pa.string()))
    kind = table[columns.time].type
    if pa.types.is_timestamp(kind):  # nanoseconds fit no datetime of Python's
        times = table[columns.time].cast(pa.timestamp("us", kind.tz), safe=False)
        table = table.set_column(table.column_names.index(columns.time), columns.time, times)
    return table


def event_rows(
    table: pa.Table, columns: EventColumns, place: str
) -> Iterator[tuple[str, Event, str]]:
    """Yield the user, event and item of each row of a prepared table.

    Raises:
        InvalidInputError: A row is wrong; it is named, counted from 0, with ``place``.
    """
    wanted = columns.named()
    try:
        values = {name: table[column].to_pylist() for name, column in wanted.items()}
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{place}: {columns.time}: {error}") from error
    for row in range(table.num_rows):
        item = {name: column[row] for name, column in values.items()}
        if item["user"] in (None, "") or item["time"] is None:
            raise InvalidInputError(f"{place}: row {row} has no user or no time")
        texts = {
            name: str(item[name]).strip()
            for name in ("advertiser", "category", "text")
            if item.get(name) is not None and even_out(str(item[name]))
        }
        action = str(item.get("action") or columns.default_action)
        event = Event(time=_moment(item["time"], place, row), action=action, **texts)
        yield str(item["user"]), event, str(item.get("item") or "")


def profile_rows(
    table: pa.Table, columns: ProfileColumns
) -> Iterator[tuple[str, dict[str, str], bool]]:
    """Yield the user of each row, what prompts may show of them, and whether they are covered."""
    user, covered = columns.user, columns.covered
    keys = columns.keys or tuple(c for c in table.column_names if c not in (user, covered))
    for row in table.to_pylist():
        values = {key: row[key] for key in keys if row[key] is not None}
        profile = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in values.items()
        }
        is_covered = covered is None or str(row[covered]).lower() in ("true", "1")
        yield str(row[user]), profile, is_covered


def _read_events(path: Path, columns: EventColumns) -> Iterator[tuple[str, Event, str]]:
    """Yield each row's user, event and item."""
    table = read_table(path, list(columns.named().values()), columns.texts())
    yield from event_rows(prepare_events(table, columns), columns, str(path))


def _read_profiles(
    path: Path | None, columns: ColumnMap
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Return the users' profiles, and who is said not to be covered."""
    if path is None:
        return {}, set()
    if columns.profiles is None:
        raise InvalidInputError(f"{path}: the column map has no table [profiles]")
    table = read_table(path, columns.profiles.required(), text=[columns.profiles.user])
    profiles, uncovered = {}, set()
    for user, profile, is_covered in profile_rows(table, columns.profiles):
        profiles[user] = profile
        if not is_covered:
            uncovered.add(user)
    return profiles, uncovered


def _moment(value: Any, place: str, row: int) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), tzinfo=UTC)
    try:
        return parse_time(value, "time")
    except InvalidRequestError as error:
        raise InvalidInputError(f"{place}: row {row}: {error}") from error
