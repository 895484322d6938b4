"""Converts columns of any type to texts and ids: `adprior_runtime.text.values` for columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.values import NoTextError, id_text, value_text

_CSV_NULLS: Final = tuple(pa.csv.ConvertOptions().null_values)
"""The texts that Arrow reads as null in a column of numbers."""
_WHOLE: Final = r"^-?\d+$"
_WHOLE_IN_CSV: Final = r"^-?\d+(\.0*)?$"
_EXACT_BITS: Final = {16: 11, 32: 24, 64: 53}
"""The bits of the integers that a float represents exactly, by its width in bits."""


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionary encoding and view types."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.cast(kind.value_type))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.large_binary())
    return column


def without_nanoseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with times cut to microseconds, as Python's datetime has them."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.time64("us"), safe=False) if pa.types.is_time64(kind) else column


def plain_table(table: pa.Table) -> pa.Table:
    """Return a table with every column plain; see `plain_column`."""
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, plain_column(table.column(place)))
    return table


def text_column(column: pa.ChunkedArray, place: str, name: str) -> pa.ChunkedArray:
    """Return the texts that prompts show, null for values that count as absent.

    Args:
        column: The column, its text checked to be UTF-8.
        place: The file, for errors.
        name: The column's name, for errors.

    Raises:
        InvalidInputError: The column holds lists, structs, bytes or another type without a text.
    """
    return _converted(column, value_text, f"{place}: column {name}")


def id_column(column: pa.ChunkedArray, place: str, name: str) -> pa.ChunkedArray:
    """Return users' ids as text: 7 and 7.0 are the same user.

    Raises:
        InvalidInputError: The type has no text, or floats are so large that ids lost digits.
    """
    where = f"{place}: column {name}"
    _refuse_lost_digits(column, where)
    return _converted(column, id_text, where)


def advertiser_column(
    column: pa.ChunkedArray, place: str, name: str, *, is_csv: bool = False
) -> pa.ChunkedArray:
    """Return advertisers as text: names as they are, ids of a catalogue as ``#17``.

    Ids are whole numbers of any type; in CSV, a column of only whole numbers holds ids.

    Raises:
        InvalidInputError: Numbers are not whole, or the type has no text.
    """
    where = f"{place}: column {name}"
    _refuse_lost_digits(column, where)
    texts = _converted(column, value_text, where)
    kind = plain_column(column).type
    if is_csv:
        return _csv_advertisers(texts)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if not _all_match(texts, _WHOLE):
            raise InvalidInputError(
                f"{where} holds numbers that are not whole, expected advertisers' names or ids"
            )
    elif not pa.types.is_integer(kind):
        return texts
    return _marked(texts)


def _csv_advertisers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a CSV's texts as they are, or marked as ids if all of them are whole numbers."""
    nothing = pc.is_in(texts, pa.array(_CSV_NULLS))
    known = pc.if_else(nothing, pa.scalar(None, pa.string()), texts)
    if known.null_count == len(known) or not _all_match(known, _WHOLE_IN_CSV):
        return texts
    return _marked(_mapped(known, lambda text: str(int(text.partition(".")[0]))))


def _marked(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(pa.scalar("#"), ids, "")


def _all_match(texts: pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern)).as_py() is not False


def _refuse_lost_digits(column: pa.ChunkedArray, where: str) -> None:
    if not pa.types.is_floating(column.type):
        return
    bits = _EXACT_BITS[column.type.bit_width]
    largest = pc.max(pc.abs(column.cast(pa.float64()))).as_py()
    if largest is not None and largest >= 2.0**bits:
        raise InvalidInputError(
            f"{where} holds ids of type {column.type} beyond 2^{bits}, which have lost digits; "
            "write them as integers or text"
        )


def _converted(
    column: pa.ChunkedArray, convert: Callable[[Any], str | None], where: str
) -> pa.ChunkedArray:
    kind = column.type
    column = _in_utc(without_nanoseconds(plain_column(column)))
    if _has_no_text(column.type):
        raise InvalidInputError(
            f"{where} holds {kind}, expected text, numbers, booleans, dates or times; write one "
            "value a row, or name other columns in the column map"
        )
    try:
        return _mapped(column, convert)
    except NoTextError as error:
        raise InvalidInputError(f"{where} holds {kind}: {error} has no text") from error
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{where}: {error}") from error


def _in_utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return moments in UTC, a zone that every machine knows; other columns as they are."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(pa.timestamp(kind.unit, "UTC"))
    return column


def _has_no_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def _mapped(column: pa.ChunkedArray, convert: Callable[[Any], str | None]) -> pa.ChunkedArray:
    """Apply a function to each distinct value of a column."""
    chunks = []
    for chunk in column.chunks:
        try:
            encoded = chunk.dictionary_encode()
        except pa.ArrowNotImplementedError:  # half floats, extension types
            chunks.append(pa.array([convert(value) for value in _values(chunk)], pa.string()))
            continue
        texts = pa.array([convert(value) for value in _values(encoded.dictionary)], pa.string())
        chunks.append(texts.take(encoded.indices))
    return pa.chunked_array(chunks, pa.string())


def _values(array: pa.Array) -> Iterator[Any]:
    """Yield an array's values; floats as NumPy's, which keep their width."""
    if pa.types.is_floating(array.type):
        yield from array.to_numpy(zero_copy_only=False)
    else:
        yield from array.to_pylist()
