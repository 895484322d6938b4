"""Profiles of any shape, read through a column map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from adprior_build.data.column_map import ProfileColumns
from adprior_build.data.tables import decode_text, read_table
from adprior_build.data.text_columns import id_column, text_column
from adprior_runtime.errors import InvalidInputError

_USER, _COVERED = "user", "covered"
_KEY: Final = "key:"
"""Prefix of a profile key in a prepared table, so that no key collides with the columns above."""
_PANDAS_INDEX: Final = "__index_level_"
"""Beginning of the columns in which pandas keeps a table's index, which is no attribute."""
_MANY_UNMATCHED: Final = 0.5
"""A larger share of users without a profile is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles of a data set.

    Attributes:
        by_user: The keys and values that prompts may show; a user's last row counts.
        uncovered: Users whose log is incomplete.
        repeated_users: Number of users with more than one row.
        nameless_rows: Number of rows without a user.
    """

    by_user: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    uncovered: frozenset[str] = frozenset()
    repeated_users: int = 0
    nameless_rows: int = 0

    @classmethod
    def of(cls, rows: Iterator[tuple[str | None, dict[str, str], bool]]) -> Profiles:
        """Gather the rows of `profile_rows`."""
        by_user: dict[str, tuple[dict[str, str], bool]] = {}
        repeated: set[str] = set()
        nameless = 0
        for user, profile, is_covered in rows:
            if user is None:
                nameless += 1
                continue
            if user in by_user:
                repeated.add(user)
            by_user[user] = (profile, is_covered)
        return cls(
            by_user={user: profile for user, (profile, _) in by_user.items()},
            uncovered=frozenset(user for user, (_, covered) in by_user.items() if not covered),
            repeated_users=len(repeated),
            nameless_rows=nameless,
        )


def read_profiles(path: Path, columns: ProfileColumns) -> Profiles:
    """Read profiles from CSV or Parquet.

    Raises:
        InvalidInputError: The file or a column is missing, or a column's type has no text.
    """
    table = read_table(path, columns.required(), all_text=True)
    return Profiles.of(profile_rows(prepare_profiles(table, columns, str(path))))


def prepare_profiles(table: pa.Table, columns: ProfileColumns, place: str) -> pa.Table:
    """Return the mapped columns as texts, named by their roles.

    Raises:
        InvalidInputError: A column's type has no text.
    """
    others = (columns.user, columns.covered)
    keys = columns.keys or tuple(
        name
        for name in table.column_names
        if name not in others and not name.startswith(_PANDAS_INDEX)
    )
    mapped = [name for name in (*others, *keys) if name is not None]
    table = decode_text(Path(place), table, mapped)
    found = {_USER: id_column(table[columns.user], place, columns.user)}
    if columns.covered is not None:
        found[_COVERED] = text_column(table[columns.covered], place, columns.covered)
    try:
        shown = {f"{_KEY}{key}": text_column(table[key], place, key) for key in keys}
    except InvalidInputError as error:
        choice = "" if columns.keys else " ([profiles] keys)"
        raise InvalidInputError(f"{error}{choice}") from error
    return pa.table(found | shown)


def profile_rows(table: pa.Table) -> Iterator[tuple[str | None, dict[str, str], bool]]:
    """Yield each prepared row's user, the profile that prompts may show, and whether covered."""
    keys = {name: name.removeprefix(_KEY) for name in table.column_names if name.startswith(_KEY)}
    for row in table.to_pylist():
        profile = {key: row[name] for name, key in keys.items() if row[name] is not None}
        is_covered = _COVERED not in row or str(row[_COVERED]).lower() in ("true", "1")
        yield row[_USER], profile, is_covered


def note_profiles(place: str, *, repeated_users: int, nameless_rows: int) -> list[str]:
    """Return lines about users with several profiles and profiles without a user."""
    notes = []
    if repeated_users:
        users = "1 user has" if repeated_users == 1 else f"{repeated_users:,} users have"
        notes.append(f"{place}: {users} more than one row: the last of each is used")
    if nameless_rows:
        rows = "1 row has" if nameless_rows == 1 else f"{nameless_rows:,} rows have"
        notes.append(f"{place}: {rows} no user: left out")
    return notes


def note_unmatched(place: str, *, users: int, without: int) -> list[str]:
    """Return a line if many users of the events have no profile."""
    if not users or without <= _MANY_UNMATCHED * users:
        return []
    return [
        f"{place}: {without:,} of the {users:,} users of the events have no profile "
        f"({without / users:.0%}); are ids written the same way in both files?"
    ]
