"""The rows of an event log of any shape: columns as texts and times, then events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from adprior_build.data.column_map import EventColumns
from adprior_build.data.repeated_rows import day_alone
from adprior_build.data.text_columns import (
    advertiser_column,
    id_column,
    plain_column,
    text_column,
    without_nanoseconds,
)
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import Event, parse_time


def prepare_events(
    table: pa.Table, columns: EventColumns, place: str, *, is_csv: bool = False
) -> pa.Table:
    """Return a log's columns as texts, named by what they hold: ``user``, ``time`` and so on.

    Times stay text where they are text, and else become UTC; ``day_alone`` tells which of them name
    a day only.

    Args:
        table: The log, its text checked to be UTF-8.
        columns: What its columns are called.
        place: The file, for errors.
        is_csv: Whether all columns are text because the file is CSV.

    Raises:
        InvalidInputError: A column's type has no text, or holds no ids.
    """
    found = {}
    for role, name in columns.named().items():
        column = table[name]
        if role == "time":
            found["day_alone"], found["time"] = _prepare_times(column)
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
        InvalidInputError: A row is wrong; it is named, counted from 0, with ``place``.
    """
    values = {name: table[name].to_pylist() for name in columns.named() if name != "time"}
    values["time"] = _read_moments(table["time"])
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


def _prepare_times(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return which times name a day only, and times as text or in UTC; others as they are."""
    column = without_nanoseconds(plain_column(column))
    alone = pa.chunked_array([day_alone(column)], pa.bool_())
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        unit = "s" if pa.types.is_date(kind) else kind.unit
        return alone, column.cast(pa.timestamp(unit))  # in UTC, whatever the zone was
    return alone, column


def _read_moments(column: pa.ChunkedArray) -> list[Any]:
    """Return times as Python's, without a zone; text as text, what fits no datetime as a number."""
    is_time = pa.types.is_timestamp(column.type)
    values: list[Any] = column.to_numpy().tolist() if is_time else column.to_pylist()
    return values


def _moment(value: Any, place: str, row: int) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    try:
        return parse_time(value, "time")
    except InvalidRequestError as error:
        raise InvalidInputError(f"{place}: row {row}: {error}") from error
