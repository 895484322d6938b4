"""Advertisers' ids from a log's own column, for a catalogue that is derived from the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from adprior_build.data.column_map import EventColumns
from adprior_build.data.tables import is_text, read_table
from adprior_build.data.text_columns import advertiser_column
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.normalisation import normalise_text

_INT64: Final = 2**63


def read_log_ids(path: Path, columns: EventColumns, column: str) -> dict[str, int]:
    """Return the id of each advertiser of a log, by normalised name.

    Args:
        path: The event log.
        columns: The names of its columns.
        column: The column with the advertisers' ids.

    Raises:
        InvalidInputError: Ids are not whole numbers, an advertiser has two, or an id has two names.
    """
    table = read_table(path, [columns.advertiser, column], all_text=True)
    place, where = str(path), f"{path}: column {column}"
    is_csv = path.suffix == ".csv"
    names = advertiser_column(table[columns.advertiser], place, columns.advertiser, is_csv=is_csv)
    ids = advertiser_column(table[column], place, column, is_csv=is_text(table[column].type))
    pairs = pa.table({"name": names, "id": ids}).group_by(["name", "id"]).aggregate([])
    by_name: dict[str, int] = {}
    by_id: dict[int, str] = {}
    for name, text in sorted(
        (normalise_text(name), text)
        for name, text in zip(*pairs.to_pydict().values(), strict=True)
        if name is not None and text is not None
    ):
        if not name:
            continue
        number = _whole(text, where)
        if by_name.setdefault(name, number) != number:
            raise InvalidInputError(
                f"{where}: advertiser {name!r} has the ids {by_name[name]} and {number}, expected "
                "one id for each name"
            )
        if (other := by_id.setdefault(number, name)) != name:
            raise InvalidInputError(
                f"{where}: id {number} has the names {other!r} and {name!r}, expected one name for "
                "each id; make them one in the log, or write a catalogue with one as an alias"
            )
    return by_name


def with_log_ids(table: pa.Table, ids: Mapping[str, int], where: str) -> pa.Table:
    """Return a derived catalogue with the log's ids instead of its own.

    Args:
        table: From `derive_catalogue`; names are normalised.
        ids: From `read_log_ids`.
        where: The file and the column, for errors.

    Raises:
        InvalidInputError: An advertiser has no id.
    """
    names = table["name"].to_pylist()
    if missing := [name for name in names if name not in ids]:
        others = f", and {len(missing) - 1:,} more advertisers have none" if missing[1:] else ""
        raise InvalidInputError(
            f"{where}: no row has an id of advertiser {missing[0]!r}{others}; expected one for each"
        )
    column = pa.array([ids[name] for name in names], pa.int64())
    return table.set_column(0, "advertiser_id", column)


def _whole(text: str, where: str) -> int:
    """Return the number of an id that `advertiser_column` marked as one."""
    digits = text.removeprefix("#")
    if text == digits or not digits.lstrip("-").isdigit() or not -_INT64 <= int(digits) < _INT64:
        raise InvalidInputError(f"{where} holds text, expected whole numbers of at most 64 bits")
    return int(digits)
