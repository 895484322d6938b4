"""What a command says of the logs and profiles that it read, one line each."""

from __future__ import annotations

from typing import Final

WITHOUT_PROFILE_SHARE: Final = 0.5
"""Where more of the users have no profile, it is said."""


def note_repeated(place: str, *, dropped: int, kept: int) -> list[str]:
    """Tell of rows that repeat another in every column."""
    if not dropped + kept:
        return []
    told = f"{place}: {_rows(dropped + kept)} another in every column"
    choice = "the column map's [events] repeated_rows"
    if not kept:
        return [f'{told}: dropped ({choice} = "keep" keeps them)']
    if not dropped:
        return [f'{told}: kept, as events of one day ({choice} = "drop" drops them)']
    return [f"{told}: {dropped:,} dropped, {kept:,} kept, as events of one day ({choice} decides)"]


def note_profiles(place: str, *, repeated_users: int, nameless_rows: int) -> list[str]:
    """Tell of users with several profiles, and of profiles of nobody."""
    notes = []
    if repeated_users:
        users = "1 user has" if repeated_users == 1 else f"{repeated_users:,} users have"
        notes.append(f"{place}: {users} more than one row: the last of each is used")
    if nameless_rows:
        rows = "1 row has" if nameless_rows == 1 else f"{nameless_rows:,} rows have"
        notes.append(f"{place}: {rows} no user: left out")
    return notes


def note_unmatched(place: str, *, users: int, without: int) -> list[str]:
    """Tell of users of the events who have no profile, where they are many."""
    if not users or without <= WITHOUT_PROFILE_SHARE * users:
        return []
    return [
        f"{place}: no profile of {without:,} of the {users:,} users of the events "
        f"({without / users:.0%}); are their ids written alike?"
    ]


def _rows(count: int) -> str:
    return "1 row repeats" if count == 1 else f"{count:,} rows repeat"
