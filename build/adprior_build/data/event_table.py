"""The rows of an event log: read through a column map, repeated ones dropped, then made events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.column_map import EventColumns
from adprior_build.data.repeated_rows import choose_dropped, find_repeated, row_digests
from adprior_build.data.tables import read_table
from adprior_build.data.text_columns import advertiser_column, id_column, text_column
from adprior_build.data.time_columns import prepare_times
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTable:
    """A log without the repeated rows that are dropped.

    Attributes:
        table: The rows, see `prepare_events`.
        rows: int64 [rows], the row of the file that each comes from, counted from 0.
        repeated_dropped: Rows that repeat another in every column, and were dropped.
        repeated_kept: Such rows that were kept.
    """

    table: pa.Table
    rows: npt.NDArray[np.int64]
    repeated_dropped: int
    repeated_kept: int

    def of_user(self, user_id: str) -> EventTable:
        """Return the rows of one user."""
        mine = np.asarray(pc.indices_nonzero(pc.equal(self.table["user"], user_id)))
        return EventTable(
            table=self.table.take(pa.array(mine)),
            rows=self.rows[mine],
            repeated_dropped=self.repeated_dropped,
            repeated_kept=self.repeated_kept,
        )


def read_event_table(path: Path, columns: EventColumns) -> EventTable:
    """Read a log's mapped columns, without the repeated rows that are dropped.

    Raises:
        InvalidInputError: The file or a column cannot be read.
    """
    table = read_table(path, columns.required(), all_text=True)
    repeated = find_repeated(row_digests(table))
    prepared = prepare_events(table, columns, str(path), is_csv=path.suffix == ".csv")
    dropped = choose_dropped(repeated, np.asarray(prepared["day_alone"].to_numpy()), columns)
    count = int(dropped.sum())
    return EventTable(
        table=prepared.filter(pa.array(~dropped)) if count else prepared,
        rows=np.flatnonzero(~dropped),
        repeated_dropped=count,
        repeated_kept=int(repeated.sum()) - count,
    )


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
    table: pa.Table,
    columns: EventColumns,
    place: str,
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Iterator[tuple[str, Event, str]]:
    """Yield the user, event and item of each row of a prepared table.

    Args:
        table: See `prepare_events`.
        columns: The names of the log's columns.
        place: The file, for errors.
        rows: The row of the file that each row comes from; by default they are the same.

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
            number = row if rows is None else rows[row]
            raise InvalidInputError(f"{place}: row {number} has no user or no time")
        try:
            at = _moment(moment)
        except InvalidInputError as error:
            number = row if rows is None else rows[row]
            raise InvalidInputError(f"{place}: row {number}: {error}") from error
        event = Event(
            time=at,
            action=(actions and actions[row]) or columns.default_action,
            **{name: values[name][row] for name in texts},
        )
        yield user, event, (items and items[row]) or ""


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, int):
        raise InvalidInputError("the time lies beyond the calendar; check its unit (time_unit)")
    try:
        return parse_time(value, "time")
    except InvalidRequestError as error:
        raise InvalidInputError(str(error)) from error
