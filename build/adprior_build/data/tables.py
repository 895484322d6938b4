"""Reads CSV and Parquet tables; a file that cannot be read gives an error of one line.

A CSV's values are separated by commas, or, if its header has no comma, by semicolons, tabs or bars.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adprior_build.data.text_columns import plain_column, plain_table
from adprior_runtime.errors import InvalidInputError

_BLOCK_BYTES: Final = 1 << 20
_LARGEST_BLOCK_BYTES: Final = 2**31 - 1
_HEADER_BYTES: Final = 1 << 16
_WRONG_WIDTH: Final = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")
_SEPARATORS: Final = (",", ";", "\t", "|")
_IN_UTF_8: Final = "convert the file, if it is Latin-1 with: iconv -f LATIN1 -t UTF-8 OLD > NEW"


def read_table(
    path: Path,
    required: Sequence[str] = (),
    text: Sequence[str] = (),
    *,
    all_text: bool = False,
) -> pa.Table:
    """Read a whole ``.csv`` or ``.parquet`` file.

    Args:
        path: The file.
        required: Columns that it must have.
        text: Columns that are text if present. In CSV they are read as text whatever they look
            like, so that ``365`` and ``007`` stay names.
        all_text: Read every column of a CSV as text: required ones decoded, others as bytes.

    Raises:
        InvalidInputError: The file cannot be read, lacks a required column, or has text that is
            not UTF-8; the message names the row, counted from 0.
    """
    if path.is_dir():
        raise InvalidInputError(f"{path}: is a directory, expected a file named .parquet or .csv")
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            table = plain_table(pa.parquet.read_table(path))
        elif path.suffix == ".csv":
            table = _read_csv(path, None if all_text else text)
        else:
            raise InvalidInputError(f"{path}: expected a file named .parquet or .csv")
        names = table.column_names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: {_reason(error)}") from error
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        raise InvalidInputError(f"{path}: the column {repeated[0]} comes more than once")
    if missing := [name for name in required if name not in table.column_names]:
        raise InvalidInputError(
            f"{path}: no column {', '.join(missing)}; found: {', '.join(table.column_names)}"
        )
    for name in set(text).intersection(table.column_names):
        if pa.types.is_null(table[name].type):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.string()))
    return decode_text(path, table, {*required, *text})


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a plain column of this type holds text or bytes."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def decode_text(path: Path, table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return a table with columns of text or bytes decoded to strings.

    Args:
        path: The file, for errors.
        table: The table.
        names: The columns to decode; columns of other types and missing ones are ignored.

    Raises:
        InvalidInputError: A value is not UTF-8; the message names the row.
    """
    for name in set(names).intersection(table.column_names):
        column = _decode(path, name, table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _read_csv(path: Path, text: Iterable[str] | None) -> pa.Table:
    """Read a CSV; values may contain line ends and be of any size.

    Args:
        path: The file.
        text: Columns of text; None for all. They are read as bytes, because Arrow refuses a value
            that is not UTF-8 without naming its row.
    """
    parse = pa.csv.ParseOptions(newlines_in_values=True, delimiter=_find_separator(path))
    block_bytes, threads = _BLOCK_BYTES, True
    while True:
        read = pa.csv.ReadOptions(block_size=block_bytes, use_threads=threads)
        try:
            if text is None:
                with pa.csv.open_csv(path, read, parse) as reader:
                    text = reader.schema.names
            types = dict.fromkeys(text, pa.binary())
            return pa.csv.read_csv(path, read, parse, pa.csv.ConvertOptions(column_types=types))
        except pa.ArrowInvalid as error:
            if _WRONG_WIDTH.search(str(error)) and threads:
                threads = False  # Arrow then tells the row's number
                continue
            # Arrow needs a row to end at most one block after the one where it begins.
            largest = min(path.stat().st_size, _LARGEST_BLOCK_BYTES)
            if "straddl" not in str(error) or block_bytes >= largest:
                raise
            block_bytes = min(block_bytes * 8, _LARGEST_BLOCK_BYTES)


def _find_separator(path: Path) -> str:
    """Return the character between the values of a CSV, from its header.

    Raises:
        InvalidInputError: The header is not UTF-8.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidInputError(
            f"{path}: found UTF-16, expected UTF-8; convert the file: iconv -f UTF-16 -t UTF-8 OLD "
            "> NEW"
        )
    lines = re.split(rb"\r\n|\r|\n", head)
    try:
        header = lines[0].decode("utf-8-sig" if len(lines) > 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path}: the header is not UTF-8 at byte {error.start}; {_IN_UTF_8}"
        ) from error
    widths = {each: len(next(csv.reader([header], delimiter=each), [])) for each in _SEPARATORS}
    return "," if widths[","] > 1 else max(_SEPARATORS, key=widths.__getitem__)


def _reason(error: Exception) -> str:
    """Return what is wrong with a file in one line; it never quotes a row, as Arrow would."""
    text = " ".join(str(error).split())
    if (wrong := _WRONG_WIDTH.search(text)) is None:
        return text
    row, expected, found = wrong.groups()
    where = f"row {int(row) - 2} (from 0)" if row else "a row"
    return (
        f"{where} has {found} values, expected {expected} as in the header; a value that contains "
        "the separator or a line end must be in double quotes"
    )


def _decode(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text or bytes as strings, checked to be UTF-8; others as they are."""
    column = plain_column(column)
    kind = column.type
    if not is_text(kind):
        return column
    raw = column.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string())
    except pa.ArrowException:
        for row, value in enumerate(raw.to_pylist()):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError:
                advice = f"; {_IN_UTF_8}" if path.suffix == ".csv" else ""
                raise InvalidInputError(
                    f"{path}: row {row} (from 0) has a {name} that is not UTF-8{advice}"
                ) from None
        raise
