"""Reading CSV and Parquet tables, with one clear line when one cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adprior_runtime.errors import InvalidInputError

__all__ = ["decode_text", "read_table"]


def read_table(path: Path, required: Sequence[str] = (), text: Sequence[str] = ()) -> pa.Table:
    """Read a ``.csv`` or ``.parquet`` file whole.

    Args:
        path: The file.
        required: Columns that it must have.
        text: Columns that are text where they are present: in CSV they are read as such whatever
            they look like, so that ``365`` and ``007`` stay names.

    Raises:
        InvalidInputError: It cannot be read, lacks a required column, or has text that is not
            UTF-8; the row is named, counted from 0.
    """
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            table = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            # As bytes: a value that is not UTF-8 would otherwise be refused without its row.
            options = pa.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.binary()))
            table = pa.csv.read_csv(path, convert_options=options)
        else:
            raise InvalidInputError(f"{path}: expected a file named .parquet or .csv")
        names = table.column_names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: {' '.join(str(error).split())}") from error
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        raise InvalidInputError(f"{path}: the column {repeated[0]} comes more than once")
    if missing := [name for name in required if name not in table.column_names]:
        raise InvalidInputError(
            f"{path}: no column {', '.join(missing)}; found: {', '.join(table.column_names)}"
        )
    return decode_text(path, table, {*required, *text})


def decode_text(path: Path, table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return a table whose columns of text or bytes are text of one type.

    Args:
        path: Where the table comes from, for errors.
        table: The table.
        names: The columns; those of other types, or that are not there, stay as they are.

    Raises:
        InvalidInputError: One is not UTF-8; its row in the table is named.
    """
    for name in set(names).intersection(table.column_names):
        column = _decode(path, name, table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _decode(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Check that text or bytes are UTF-8 and return text; columns of other types stay."""
    kind = column.type
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    if not any(check(kind) for check in checks):
        return column
    raw = column.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string())
    except pa.ArrowException:
        for row, value in enumerate(raw.to_pylist()):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidInputError(
                    f"{path}: row {row} (from 0) has a {name} that is not UTF-8"
                ) from None
        raise
