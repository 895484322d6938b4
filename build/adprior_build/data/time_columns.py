"""Converts columns of times of any type: dates, times, texts, and numbers that count since 1970."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.repeated_rows import day_alone
from adprior_build.data.text_columns import plain_column, without_nanoseconds
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import parse_time

_NUMBER: Final = r"^\s*-?\d+(\.\d*)?([eE]\+?\d+)?\s*$"
_WHOLE: Final = r"^\s*\d+\s*$"
_DAY: Final = r"^\s*\d{8}\s*$"
_DAYS: Final = (10_000_000, 99_999_999)
_MICROSECONDS: Final = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_BEYOND: Final = 9.2e18
"""A count of microseconds near the end of int64, beyond any calendar."""
_SECONDS_UP_TO: Final = 1e11
"""Counts of seconds are smaller until the year 5138; those of milliseconds are larger from 1973."""


def prepare_times(
    column: pa.ChunkedArray, unit: str | None, where: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return which times name only a day, and the times: text as it is, the rest in UTC.

    Args:
        column: Dates, times, text, or numbers.
        unit: What numbers count since 1970: ``s``, ``ms``, ``us`` or ``ns``; None if the column
            holds none. Whole numbers of eight digits are days then (20240531), as texts are.
        where: The file and the column, for errors.

    Raises:
        InvalidInputError: The type holds no times, or the unit is missing, superfluous, or no unit
            of what is there.
    """
    column = without_nanoseconds(plain_column(column))
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        if unit is not None:
            raise InvalidInputError(
                f'{where} holds {kind}: leave time_unit = "{unit}" out of the column map; it is '
                "for numbers that count since 1970"
            )
        ticks = "s" if pa.types.is_date(kind) else kind.unit
        return _alone(column), column.cast(pa.timestamp(ticks))  # in UTC, whatever the zone was
    if not (_is_number(kind) or _is_text(kind) or pa.types.is_null(kind)):
        raise InvalidInputError(f"{where} holds {kind}, expected dates, times, numbers or text")
    if unit is not None:
        times = _count_since_1970(column, unit, where)
        return _alone(times), times
    if _is_number(kind) and pa.types.is_integer(kind) and _are_days(column):
        column = column.cast(pa.string())
    if suggested := suggest_unit(column):
        others = ", ".join(f'"{unit}"' for unit in _MICROSECONDS if unit != suggested)
        raise InvalidInputError(
            f"{where} holds numbers, expected dates or times; if they count since 1970, add "
            f'time_unit = "{suggested}" (or {others}) to [events] of the column map'
        )
    return _alone(column), column


def suggest_unit(column: pa.ChunkedArray) -> str | None:
    """Return the likely unit of a column of numbers, or of texts that are all numbers.

    Returns:
        ``s``, ``ms``, ``us`` or ``ns``, by size; None if the column holds no numbers, or days of
        eight digits.
    """
    column = plain_column(column)
    if _is_text(column.type):
        known = column.filter(pc.not_equal(pc.utf8_trim_whitespace(column), ""))
        if not len(known) or not _all_match(known, _WHOLE) or _all_match(known, _DAY):
            return None
        column = known
    elif not _is_number(column.type) or _are_days(column):
        return None
    values = _numbers(column)
    values = np.abs(values[np.isfinite(values)])
    size, limit = float(np.median(values)) if len(values) else 0.0, _SECONDS_UP_TO
    for unit in ("s", "ms", "us"):
        if size < limit:
            return unit
        limit *= 1e3
    return "ns"


def read_moments(column: pa.ChunkedArray) -> npt.NDArray[np.datetime64]:
    """Return prepared times in UTC, to the second; NaT for those that `event_rows` refuses."""
    if pa.types.is_timestamp(column.type):
        days = np.array(column.to_numpy()).astype("datetime64[s]")
        low, high = np.datetime64("0001-01-02"), np.datetime64("9999-12-30")
        return np.where((days < low) | (days > high), np.datetime64("NaT", "s"), days)
    encoded = column.combine_chunks().dictionary_encode()
    found = np.array(
        [_moment(value) for value in encoded.dictionary.to_pylist()] + [None], dtype="datetime64[s]"
    )
    chosen: npt.NDArray[np.datetime64] = found[
        encoded.indices.fill_null(len(found) - 1).to_numpy(zero_copy_only=False)
    ]
    return chosen


def _count_since_1970(column: pa.ChunkedArray, unit: str, where: str) -> pa.ChunkedArray:
    """Return numbers, or texts of numbers, as timestamps."""
    if _is_text(column.type):
        # Trimmed first: Arrow's if_else of a sliced text column can have wrong offsets.
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        wrong = pc.fill_null(pc.invert(pc.match_substring_regex(column, _NUMBER)), False)
        if pc.any(wrong).as_py():
            row = int(np.flatnonzero(np.asarray(wrong.to_numpy()))[0])
            raise InvalidInputError(
                f"{where}: row {row} (from 0) has a time that is not a number, expected numbers, "
                f'because the column map says time_unit = "{unit}"'
            )
    if pa.types.is_integer(column.type) or (_is_text(column.type) and _all_match(column, _WHOLE)):
        try:
            return without_nanoseconds(column.cast(pa.int64()).cast(pa.timestamp(unit)))
        except pa.ArrowInvalid:
            pass  # beyond int64, so beyond the calendar, which `event_rows` refuses
    values = _numbers(column)
    missing = np.isnan(values)
    ticks = np.clip(np.where(missing, 0.0, values) * _MICROSECONDS[unit], -_BEYOND, _BEYOND)
    micros = np.rint(ticks).astype(np.int64)
    return pa.chunked_array([pa.array(micros, pa.int64(), mask=missing).cast(pa.timestamp("us"))])


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return numbers, or texts of numbers, as float64; NaN for nulls."""
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column)
    values: npt.NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy()
    return values.astype(np.float64)


def _are_days(column: pa.ChunkedArray) -> bool:
    """Tell whether all numbers have eight digits, as in 20240531."""
    ends = pc.min_max(column)
    least, most = ends["min"].as_py(), ends["max"].as_py()
    return least is not None and _DAYS[0] <= least and most <= _DAYS[1]


def _alone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([day_alone(column)], pa.bool_())


def _all_match(texts: pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern)).as_py() is not False


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _moment(text: str) -> Any:
    try:
        return parse_time(text, "time").astimezone(UTC).replace(tzinfo=None)
    except InvalidRequestError:
        return None
