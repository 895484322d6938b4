"""Event logs of any shape, read through a column map into one history per user."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_build.data.event_table import event_rows, read_event_table
from adprior_build.data.profiles import Profiles, note_profiles, note_unmatched, read_profiles
from adprior_build.data.repeated_rows import note_repeated
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event
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
    profiles = read_known_profiles(profiles_path, columns, say)
    histories: dict[str, list[tuple[Event, str]]] = {}
    for user_id, event, item in _read_events(events_path, columns.events, say):
        histories.setdefault(user_id, []).append((event, item))
    if profiles_path is not None and histories:
        without = sum(user not in profiles.by_user for user in histories)
        check_matches(profiles_path, events_path, len(histories), without)
        for note in note_unmatched(str(profiles_path), users=len(histories), without=without):
            say(note)
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


def check_matches(profiles: Path, events: Path, users: int, without: int) -> None:
    """Refuse profiles that match no user.

    Args:
        profiles: The profiles, for the error.
        events: The log, for the error.
        users: Number of the log's users.
        without: Number of those without a profile.

    Raises:
        InvalidInputError: No user has a profile.
    """
    if without == users:
        raise InvalidInputError(
            f"{profiles}: none of the {users:,} users of {events} has a profile; are ids written "
            "the same way in both, and does the column map name the right user columns?"
        )


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


def _read_events(
    path: Path, columns: EventColumns, say: Callable[[str], None]
) -> Iterator[tuple[str, Event, str]]:
    """Yield the user, event and item of each row, without the repeated rows that are dropped."""
    log = read_event_table(path, columns)
    yield from track(
        event_rows(log.table, columns, str(path), log.rows),
        desc=f"reading {path.name}",
        unit="row",
        total=log.table.num_rows,
        leave=False,
    )
    for note in note_repeated(str(path), dropped=log.repeated_dropped, kept=log.repeated_kept):
        say(note)


def read_known_profiles(
    path: Path | None, columns: ColumnMap, say: Callable[[str], None]
) -> Profiles:
    """Read the profiles, none without a path; report users with several and rows with none."""
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
