"""Describes the columns of a table: what they hold, how much is missing, how many values differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.tables import is_text
from adprior_build.data.text_columns import plain_column
from adprior_build.data.time_columns import suggest_unit
from adprior_runtime.text.times import read_time
from adprior_runtime.text.values import NoTextError, value_text

TEXT: Final = "text"
WHOLE: Final = "whole numbers"
NUMBERS: Final = "numbers"
DAYS: Final = "days"
ZONED: Final = "times with a zone"
UNZONED: Final = "times without a zone"
MIXED: Final = "times, some with a zone"
LISTS: Final = "lists"
TIMES: Final = frozenset({DAYS, ZONED, UNZONED, MIXED})

_SAMPLE: Final = 1_000
_EXAMPLE_CHARS: Final = 24
_PLAUSIBLE_YEARS: Final = (1990, 2100)
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DIGITS_OF_A_DAY: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """One column.

    Attributes:
        name: Its name.
        type: Arrow's type, of a categorical that of its values; ``text`` in CSV.
        holds: A word for its values: ``text``, ``whole numbers``, ``days`` and so on.
        rows: Number of rows.
        empty: Rows without a value; blank text counts.
        distinct: Number of different values; None for lists and the like, and where Arrow or
            Python cannot hold them.
        unit: The unit if its numbers can be times that count since 1970.
        example: The most frequent value, shortened; empty if every value occurs once.
    """

    name: str
    type: str
    holds: str
    rows: int
    empty: int
    distinct: int | None = None
    unit: str | None = None
    example: str = ""

    @property
    def share_distinct(self) -> float:
        """The number of different values, as a share of the rows that have one."""
        return (self.distinct or 0) / max(1, self.rows - self.empty)


def describe_columns(table: pa.Table) -> list[ColumnFacts]:
    """Describe every column of a table as `read_table` returns it."""
    return [_describe(name, table[name]) for name in table.column_names]


def _describe(name: str, column: pa.ChunkedArray) -> ColumnFacts:
    kind, column = str(column.type), plain_column(column)
    rows, empty = len(column), column.null_count
    if is_text(column.type):
        try:
            column = column.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowException:
            return ColumnFacts(
                name=name, type=kind, holds="text that is not UTF-8", rows=rows, empty=empty
            )
        kind = TEXT if kind == "binary" else kind
        column = column.filter(pc.not_equal(pc.utf8_trim_whitespace(column), ""))
        empty = rows - len(column)
    known = column.drop_null()
    if not len(known):
        return ColumnFacts(name=name, type=kind, holds="nothing", rows=rows, empty=empty)
    if pa.types.is_nested(column.type):
        holds = LISTS if hasattr(column.type, "value_type") else "structs"
        return ColumnFacts(name=name, type=kind, holds=holds, rows=rows, empty=empty)
    try:
        counts = known.value_counts()
        values, numbers = counts.field("values"), counts.field("counts")
        unit = _plausible_unit(known)
        best = pc.index(numbers, pc.max(numbers)).as_py()
        example = _shorten(values[best]) if numbers[best].as_py() > 1 else ""
    except (pa.ArrowNotImplementedError, OverflowError):
        # Arrow counts no float16; Python has no times beyond the year 9999.
        holds = _form(known[:_SAMPLE])
        return ColumnFacts(name=name, type=kind, holds=holds, rows=rows, empty=empty)
    return ColumnFacts(
        name=name,
        type=kind,
        holds=_form(values[:_SAMPLE]),
        rows=rows,
        empty=empty,
        distinct=len(values),
        unit=unit,
        example=example,
    )


def _form(values: pa.Array | pa.ChunkedArray) -> str:
    """Return the word for what values are."""
    kind = values.type
    if pa.types.is_integer(kind):
        return DAYS if _are_times([str(value) for value in values.to_pylist()]) else WHOLE
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return WHOLE if all(float(value) % 1 == 0 for value in values.to_pylist()) else NUMBERS
    if pa.types.is_large_string(kind):
        return _form_of_texts(values.to_pylist())
    if pa.types.is_timestamp(kind):
        return ZONED if kind.tz is not None else DAYS if _are_midnights(values) else UNZONED
    if pa.types.is_date(kind):
        return DAYS
    return "true or false" if pa.types.is_boolean(kind) else str(kind)


def _are_midnights(values: pa.Array | pa.ChunkedArray) -> bool:
    in_a_day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    return all(number % in_a_day == 0 for number in values.cast(pa.int64()).to_pylist())


def _form_of_texts(values: Sequence[str]) -> str:
    if times := _are_times(values):
        if all(each.time() == each.time().min for each in times):
            return DAYS
        zoned = sum(each.tzinfo is not None for each in times)
        return ZONED if zoned == len(times) else MIXED if zoned else UNZONED
    if {value.strip().lower() for value in values} <= {"true", "false"}:
        return "true or false"
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return TEXT
    return WHOLE if all(number.is_integer() for number in numbers) else NUMBERS


def _are_times(values: Sequence[str]) -> list[datetime]:
    """Return the times of texts; empty if one is none, or they may be other numbers."""
    low, high = _PLAUSIBLE_YEARS
    found = []
    for value in values:
        try:
            found.append(read_time(value))
        except ValueError:
            return []
        if len(value.strip()) == _DIGITS_OF_A_DAY and not low <= found[-1].year <= high:
            return []
    return found


def _plausible_unit(known: pa.ChunkedArray) -> str | None:
    """Return the unit in which numbers would be times of our age; None if in none."""
    if (unit := suggest_unit(known)) is None:
        return None
    if is_text(known.type):
        known = pc.utf8_trim_whitespace(known)
    ends = pc.min_max(known.cast(pa.float64(), safe=False))
    low, high = (
        datetime(year, 1, 1, tzinfo=UTC).timestamp() * _PER_SECOND[unit]
        for year in _PLAUSIBLE_YEARS
    )
    return unit if low <= ends["min"].as_py() and ends["max"].as_py() <= high else None


def _shorten(value: Any) -> str:
    found = value.as_py()
    try:
        text = found.isoformat() if isinstance(found, date) else value_text(found) or ""
    except NoTextError:
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _EXAMPLE_CHARS else f"{text[: _EXAMPLE_CHARS - 1]}…"
