"""Checks of forecast rows: a row that no client would rank with is refused, with its number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from adprior_client.encoding import ROUNDING
from adprior_client.stored.redis_record import MOST_ADVERTISERS
from adprior_runtime.errors import InvalidInputError

_TYPES: Final[dict[str, Any]] = {
    "as_of": pa.timestamp("us", "UTC"),
    "advertiser_ids": pa.list_(pa.int64()),
    "log_probs": pa.list_(pa.float32()),
    "exact": pa.bool_(),
    "missing_mass": pa.float32(),
    "bundle_id": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Place:
    """The origin of a batch: its file, and the number of its first row."""

    path: Path
    first: int

    def error(self, row: int, problem: str) -> InvalidInputError:
        """Return the error of one row of the batch."""
        return InvalidInputError(f"{self.path}: row {self.first + row}: {problem}")


def cast_column(column: Any, name: str, place: Place) -> Any:
    """Return a column in the type that records need.

    Raises:
        InvalidInputError: It has another type.
    """
    if name == "user_id" and pa.types.is_integer(column.type):
        return column
    expected = _TYPES.get(name, pa.string())
    if name == "as_of" and pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if name == "as_of" and pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp("us"), safe=False).cast(expected)
    try:
        if name not in {"user_id", "bundle_id"} and pa.types.is_string(column.type):
            raise pa.ArrowInvalid
        return column.cast(expected, safe=name not in {"as_of", "log_probs", "missing_mass"})
    except pa.ArrowException:
        wanted = "text or integers" if name == "user_id" else expected
        raise InvalidInputError(
            f"{place.path}: {name}: found {column.type}, expected {wanted}"
        ) from None


def list_lengths(column: Any) -> NDArray[np.int64]:
    """Return the lengths of a column's lists; 0 for null."""
    lengths: NDArray[np.int64] = (
        pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    )
    return lengths


def check_rows(
    columns: Mapping[str, Any],
    lengths: NDArray[np.int64],
    kept: NDArray[np.int64],
    place: Place,
) -> None:
    """Refuse rows that lack a value; rows that are not ``kept`` may lack any.

    Args:
        columns: The cast columns.
        lengths: [n], advertisers per row.
        kept: Numbers of the rows that have advertisers.
        place: Where the rows are from.

    Raises:
        InvalidInputError: A row is malformed.
    """
    for name in ("user_id", "as_of", "exact", "missing_mass"):
        missing = np.flatnonzero(columns[name].is_null().to_numpy(zero_copy_only=False)[kept])
        if missing.size:
            raise place.error(int(kept[missing[0]]), f"{name} is null")
    if lengths.size and lengths.max() > MOST_ADVERTISERS:
        row = int(lengths.argmax())
        raise place.error(
            row, f"found {lengths[row]} advertisers, expected up to {MOST_ADVERTISERS}"
        )
    scored = list_lengths(columns["log_probs"])
    if (other := np.flatnonzero(scored != lengths)).size:
        row = int(other[0])
        raise place.error(
            row, f"log_probs: found {scored[row]} values for {lengths[row]} advertisers"
        )
    for name in ("advertiser_ids", "log_probs"):
        nulls = columns[name].flatten().is_null().to_numpy(zero_copy_only=False)
        if nulls.any():
            row = int(np.searchsorted(np.cumsum(lengths), int(nulls.argmax()), side="right"))
            raise place.error(row, f"{name} holds a null")
    mass = columns["missing_mass"].fill_null(0).to_numpy()
    if (bad := kept[~((mass[kept] >= 0) & (mass[kept] <= 1))]).size:
        row = int(bad[0])
        raise place.error(row, f"missing_mass: found {mass[row]:g}, expected 0 to 1")


def check_advertisers(
    ids: NDArray[np.int64], log_probs: NDArray[np.float32], rows: NDArray[np.int64], place: Place
) -> None:
    """Refuse values that are not log-probabilities, and advertisers that are listed twice.

    Args:
        ids: [m, n], advertisers of m rows.
        log_probs: [m, n]
        rows: [m], their numbers in the batch.
        place: Where the rows are from.

    Raises:
        InvalidInputError: A row is malformed.
    """
    bad = np.flatnonzero(~(np.isfinite(log_probs) & (log_probs <= ROUNDING)).all(axis=1))
    if bad.size:
        raise place.error(int(rows[bad[0]]), "log_probs: expected finite numbers, at most 0")
    ordered = np.sort(ids, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if twice.size:
        raise place.error(int(rows[twice[0]]), "advertiser_ids: an advertiser is named twice")
