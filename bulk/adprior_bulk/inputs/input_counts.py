"""Counts the inputs while they are split by user; printed before forecasting starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from adprior_runtime.text.json_text import to_json

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCounts:
    """Counts of one piece of an input.

    Attributes:
        rows: All rows.
        users: Distinct users.
        without_user: Rows without a user; they are dropped.
        unreadable: Rows with text that is not UTF-8; their users become dead letters.
        first, last: Days of the earliest and latest event, if known.
    """

    rows: int = 0
    users: int = 0
    without_user: int = 0
    unreadable: int = 0
    first: str | None = None
    last: str | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read counts from a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def to_json(self) -> str:
        """Return the counts as text."""
        return to_json(asdict(self))


class PieceCounter:
    """Counts the rows of one piece, table by table.

    Args:
        user: Column of users, as text.
        wrong: Column that says what is wrong with a row, null if nothing is.
        time: Column of times, None where there is none.
    """

    def __init__(self, user: str, wrong: str, time: str | None) -> None:
        self._user, self._wrong, self._time = user, wrong, time
        self._rows = self._without_user = self._unreadable = 0
        self._users: Any = pa.array([], pa.string())
        self._days: list[str] = []

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table."""
        users, is_readable = table[self._user].cast(pa.string()), pc.is_null(table[self._wrong])
        has_no_user = pc.and_(is_readable, pc.fill_null(pc.equal(users, ""), True))
        self._rows += table.num_rows
        self._without_user += pc.sum(has_no_user).as_py() or 0
        self._unreadable += table.num_rows - (pc.sum(is_readable).as_py() or 0)
        found = pc.unique(users.combine_chunks())
        self._users = pc.unique(pa.concat_arrays([self._users, found]))
        if self._time is not None:
            self._days += _days(table[self._time])

    def counts(self) -> InputCounts:
        """Return the counts of all tables."""
        return InputCounts(
            rows=self._rows,
            users=pc.sum(pc.not_equal(self._users, "")).as_py() or 0,
            without_user=self._without_user,
            unreadable=self._unreadable,
            first=min(self._days, default=None),
            last=max(self._days, default=None),
        )


def describe(kind: str, pieces: Sequence[InputCounts]) -> str:
    """Return the progress line about one kind of input.

    Pieces are counted separately and may share users, so several pieces give only an upper bound.
    """
    users = sum(piece.users for piece in pieces)
    about = "up to " if len(pieces) > 1 else ""
    found = [f"{sum(piece.rows for piece in pieces):,} rows", f"{about}{users:,} users"]
    first = min(_known(piece.first for piece in pieces), default=None)
    last = max(_known(piece.last for piece in pieces), default=None)
    if first is not None:
        found.append(f"{first} to {last}")
    parts = [f"{kind}: {', '.join(found)}"]
    if dropped := sum(piece.without_user for piece in pieces):
        parts.append(f"rows without a user, dropped: {dropped:,}")
    if unreadable := sum(piece.unreadable for piece in pieces):
        parts.append(f"rows not in UTF-8, their users become dead letters: {unreadable:,}")
    return "; ".join(parts)


def _known(days: Iterable[str | None]) -> list[str]:
    return [day for day in days if day is not None]


def _days(column: pa.ChunkedArray) -> list[str]:
    """Return the first and last day of dates, times or ISO 8601 text; empty for other columns."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"), safe=False)  # in UTC, without a zone
    try:
        extremes = pc.min_max(column).as_py().values()
    except (pa.ArrowException, ValueError, OverflowError):
        return []  # the reader of the rows reports what is wrong with them
    texts = (str(each.isoformat() if isinstance(each, date) else each) for each in extremes)
    return [match[0] for match in map(_DAY.match, texts) if match is not None]
