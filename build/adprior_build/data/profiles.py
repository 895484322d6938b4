"""Profiles of any shape, read through a column map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from adprior_build.data.column_map import ProfileColumns
from adprior_build.data.tables import decode_text, read_table
from adprior_build.data.text_columns import id_column, text_column
from adprior_runtime.errors import InvalidInputError

_USER, _COVERED = "user", "covered"
_KEY = "key:"
"""Before a key's name in a prepared table: keys may be called as the other columns are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles of a data set.

    Attributes:
        by_user: What prompts may show of each user; of one who comes twice, the last row.
        uncovered: Users whose log is said not to be whole.
        repeated_users: How many come more than once.
        nameless_rows: How many rows have no user.
    """

    by_user: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    uncovered: frozenset[str] = frozenset()
    repeated_users: int = 0
    nameless_rows: int = 0

    @classmethod
    def of(cls, rows: Iterator[tuple[str | None, dict[str, str], bool]]) -> Profiles:
        """Gather the rows of `profile_rows`."""
        by_user: dict[str, dict[str, str]] = {}
        uncovered: set[str] = set()
        repeated: set[str] = set()
        nameless = 0
        for user, profile, is_covered in rows:
            if user is None:
                nameless += 1
                continue
            if user in by_user:
                repeated.add(user)
            by_user[user] = profile
            if is_covered:
                uncovered.discard(user)
            else:
                uncovered.add(user)
        return cls(
            by_user=by_user,
            uncovered=frozenset(uncovered),
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
    """Return a table of texts, its columns named by what they hold.

    Raises:
        InvalidInputError: A column's type has no text.
    """
    others = (columns.user, columns.covered)
    keys = columns.keys or tuple(name for name in table.column_names if name not in others)
    mapped = [name for name in (*others, *keys) if name is not None]
    table = decode_text(Path(place), table, mapped)
    found = {_USER: id_column(table[columns.user], place, columns.user)}
    if columns.covered is not None:
        found[_COVERED] = text_column(table[columns.covered], place, columns.covered)
    try:
        shown = {f"{_KEY}{key}": text_column(table[key], place, key) for key in keys}
    except InvalidInputError as error:
        choice = "" if columns.keys else "; [profiles] keys in the column map chooses the columns"
        raise InvalidInputError(f"{error}{choice}") from error
    return pa.table(found | shown)


def profile_rows(table: pa.Table) -> Iterator[tuple[str | None, dict[str, str], bool]]:
    """Yield the user of each prepared row, what prompts may show of them, whether covered."""
    keys = {name: name.removeprefix(_KEY) for name in table.column_names if name[:4] == _KEY}
    for row in table.to_pylist():
        profile = {key: row[name] for name, key in keys.items() if row[name] is not None}
        is_covered = _COVERED not in row or str(row[_COVERED]).lower() in ("true", "1")
        yield row[_USER], profile, is_covered
