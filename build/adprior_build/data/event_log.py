"""Event logs and profiles of any shape, read through a column map."""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from pathlib import Path

import numpy as np

from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.log_notes import note_profiles, note_repeated, note_unmatched
from adprior_build.data.log_rows import event_rows, prepare_events
from adprior_build.data.profiles import Profiles, read_profiles
from adprior_build.data.repeated_rows import choose_dropped, find_repeated, row_digests
from adprior_build.data.tables import read_table
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
from adprior_runtime.terminal.progress import track


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


def _say(line: str) -> None:
    print(f"adprior: {line}", file=sys.stderr)


def read_users(
    events_path: Path,
    profiles_path: Path | None,
    columns: ColumnMap,
    *,
    say: Callable[[str], None] = _say,
) -> list[UserHistory]:
    """Read users with at least one event, ordered by id, their events by time.

    Args:
        events_path: The event log.
        profiles_path: The profiles, if any.
        columns: What their columns are called.
        say: Takes a line on what was found in them; the default writes it to standard error.

    Raises:
        InvalidInputError: A file or column is missing, a row is wrong (it is named), or no user of
            the events has a profile.
    """
    profiles = _read_profiles(profiles_path, columns, say)
    histories: dict[str, list[tuple[Event, str]]] = {}
    for user_id, event, item in _read_events(events_path, columns.events, say):
        histories.setdefault(user_id, []).append((event, item))
    if profiles_path is not None:
        _tell_unmatched(events_path, profiles_path, histories.keys(), profiles, say)
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
    """Tell whether the advertiser column held ids (``#17``) and no names."""
    names = [event.advertiser for user in users for event in user.events if event.advertiser]
    return bool(names) and all(name[0] == "#" and name[1:].lstrip("-").isdigit() for name in names)


def _read_events(
    path: Path, columns: EventColumns, say: Callable[[str], None]
) -> Iterator[tuple[str, Event, str]]:
    """Yield each row's user, event and item, without the repeated rows that are dropped."""
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
    for row, found in enumerate(rows):
        if not dropped[row]:
            yield found
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


def _tell_unmatched(
    events: Path,
    profiles_path: Path,
    users: Collection[str],
    profiles: Profiles,
    say: Callable[[str], None],
) -> None:
    without = sum(user not in profiles.by_user for user in users)
    if users and without == len(users):
        raise InvalidInputError(
            f"{profiles_path}: no profile of any of the {len(users):,} users of {events}; are "
            "their ids written alike, and the column map's user columns right?"
        )
    for note in note_unmatched(str(profiles_path), users=len(users), without=without):
        say(note)
