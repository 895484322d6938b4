"""The column map: the names of the columns in an event log and in profiles.

It is a small TOML file::

    [events]
    user = "user_id"
    time = "date"
    time_unit = "ms"           # optional: times are numbers, milliseconds since 1970
    advertiser = "brand"       # names, or, in a column of integers, ids of the catalogue
    category = "category"      # optional
    text = "title"             # optional
    item = "product_id"        # optional: the item that a retriever would show
    action = "kind"            # optional
    default_action = "purchase"
    event_id = "event"         # optional: each event's id
    repeated_rows = "drop"     # optional: "drop" or "keep" rows that repeat another completely

    [profiles]
    user = "user_id"
    keys = ["age", "home_state"]   # optional; otherwise every other column
    covered = "complete"           # optional: true for users whose log is nearly whole
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

from adprior_runtime.errors import InvalidInputError

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "repeated_rows": ("drop", "keep"),
    "time_unit": ("s", "ms", "us", "ns"),
}
"""Keys that are no column names, and their values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventColumns:
    """The names of the event log's columns; None for columns that it lacks.

    ``time_unit`` is ``s``, ``ms``, ``us`` or ``ns`` if times are numbers that count since 1970.
    ``repeated_rows`` is ``drop`` or ``keep``, for rows that repeat another in every column. By
    default they are dropped if the log has an ``event_id`` or the row's time is finer than a day.
    """

    user: str
    time: str
    advertiser: str
    time_unit: str | None = None
    category: str | None = None
    text: str | None = None
    action: str | None = None
    item: str | None = None
    default_action: str = "event"
    event_id: str | None = None
    repeated_rows: str | None = None

    def required(self) -> list[str]:
        """Return the columns that the log must have."""
        names = [*self.named().values(), self.event_id]
        return [name for name in dict.fromkeys(names) if name is not None]

    def named(self) -> dict[str, str]:
        """Return the columns that events are read from, by role."""
        names = ("user", "time", "advertiser", "category", "text", "action", "item")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileColumns:
    """The names of the profiles' columns; no ``keys`` means all other columns."""

    user: str
    keys: tuple[str, ...] = ()
    covered: str | None = None

    def required(self) -> list[str]:
        """Return the columns that the profiles must have."""
        return [self.user, *self.keys, *([] if self.covered is None else [self.covered])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """Maps a data set's columns to the roles that adprior uses."""

    events: EventColumns
    profiles: ProfileColumns | None = None

    @classmethod
    def load(cls, path: Path) -> ColumnMap:
        """Read a column map from TOML; unknown keys are refused."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path}: not a column map: {error}") from error
        _refuse_unknown(path, "", document, {"events", "profiles"})
        events = _section(path, document, "events", EventColumns)
        profiles = _section(path, document, "profiles", ProfileColumns)
        if events is None:
            raise InvalidInputError(f"{path}: the table [events] is missing")
        return cls(events=events, profiles=profiles)


def _section(path: Path, document: dict[str, Any], name: str, kind: Any) -> Any:
    if (table := document.get(name)) is None:
        return None
    if not isinstance(table, dict):
        raise InvalidInputError(f"{path}: {name} is not a table [{name}]")
    for key, value in table.items():
        expected = "a list of column names" if key == "keys" else "a column name"
        is_list = isinstance(value, list)
        values = value if is_list else [value]
        if is_list != (key == "keys") or not all(isinstance(item, str) for item in values):
            raise InvalidInputError(f"{path}: [{name}] {key} is {value!r}, expected {expected}")
    _refuse_unknown(path, f"[{name}] ", table, {item.name for item in fields(kind)})
    needed = [item.name for item in fields(kind) if item.default is MISSING]
    if missing := [key for key in needed if key not in table]:
        raise InvalidInputError(
            f"{path}: [{name}] has no {' and no '.join(missing)}: it must name the columns of "
            f"{', '.join(needed)}"
        )
    for key in _CHOICES.keys() & table.keys():
        if table[key] not in _CHOICES[key]:
            expected = " or ".join(f'"{choice}"' for choice in _CHOICES[key])
            raise InvalidInputError(
                f"{path}: [{name}] {key} is {table[key]!r}, expected {expected}"
            )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


def _refuse_unknown(path: Path, where: str, table: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(table) - known):
        raise InvalidInputError(f"{path}: {where}unknown keys {unknown}; known: {sorted(known)}")
