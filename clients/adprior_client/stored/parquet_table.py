"""Forecasts of Parquet files as columns in memory, ordered by their users' checksums."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_client.results import Advertiser, Forecast
from adprior_client.stored.forecast_time import are_not_in_future
from adprior_client.stored.parquet_columns import NAMES, REQUIRED, check_column, has_numbers
from adprior_client.stored.parquet_files import ForecastFiles
from adprior_client.stored.redis_keys import field_of
from adprior_client.types import Source, UserId
from adprior_runtime.errors import InvalidInputError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VALUES: Final = REQUIRED[2:]
"""All columns but the user and the time."""


class ParquetTable:
    """Every user's latest forecast.

    Columns are read one after the other, which bounds the extra memory of reading.

    Args:
        path: The caller's path, for messages.
        files: The files to read.

    Attributes:
        from_future: Number of rows left out because they are in the future.

    Raises:
        InvalidInputError: A file is unreadable, a column is missing or has a wrong type, or pyarrow
            is missing.
    """

    def __init__(self, path: Path, files: ForecastFiles) -> None:
        self._path = path
        dataset, names = self._open(files)
        lengths = _lengths(self._column(dataset, "advertiser_ids"))
        rows = np.flatnonzero(lengths)
        del lengths
        made_at = _microseconds(self._column(dataset, "as_of"), path)[rows]
        is_valid = are_not_in_future(made_at)
        self.from_future = int(np.count_nonzero(~is_valid))
        rows, made_at = rows[is_valid], made_at[is_valid]
        users = self._column(dataset, "user_id").take(rows)
        checksums, order = _latest(users, made_at)
        self._checksums: NDArray[np.uint32] = checksums
        self._made_at: NDArray[np.int64] = made_at[order]
        self._users: Any = users.take(order)
        del users, made_at
        rows = rows[order]
        self._columns: dict[str, Any] = {
            name: self._column(dataset, name).take(rows) for name in names
        }
        self._release_memory()

    def __len__(self) -> int:
        return len(self._checksums)

    def find(self, user_id: UserId) -> Forecast | None:
        """Return the user's forecast, or None."""
        try:
            checksum = np.uint32(zlib.crc32(field_of(user_id)))
        except TypeError:
            return None
        first = int(np.searchsorted(self._checksums, checksum))
        for row in range(first, len(self._checksums)):
            if self._checksums[row] != checksum:
                return None
            if self._users[row].as_py() == user_id:
                return self._forecast(row)
        return None

    def _forecast(self, row: int) -> Forecast:
        values = {name: column[row].as_py() for name, column in self._columns.items()}
        ids, log_probs = values["advertiser_ids"], values["log_probs"] or []
        names: Sequence[str] = values.get(NAMES) or [""] * len(ids)
        return Forecast(
            advertisers=tuple(
                Advertiser(advertiser_id=advertiser_id, name=name, log_prob=log_prob)
                for advertiser_id, name, log_prob in zip(ids, names, log_probs, strict=True)
            ),
            exact=bool(values["exact"]),
            missing_mass=float(values["missing_mass"]),
            bundle_id=values["bundle_id"] or "",
            source=Source.STORED,
            made_at=_EPOCH + timedelta(microseconds=int(self._made_at[row])),
        )

    def _open(self, files: ForecastFiles) -> tuple[Any, list[str]]:
        try:
            import pyarrow as pa  # noqa: PLC0415  optional
            import pyarrow.dataset as ds  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInputError(
                f"{self._path}: reading Parquet needs pyarrow: pip install 'adprior[parquet]'"
            ) from error
        self._faults: tuple[type[Exception], ...] = (OSError, pa.ArrowException)
        self._release_memory = pa.default_memory_pool().release_unused  # unused after reading
        try:
            dataset = ds.dataset(
                [str(file) for file in files.files],
                format="parquet",
                partitioning="hive",
                partition_base_dir=str(self._path) if self._path.is_dir() else None,
            )
        except self._faults as error:
            raise self._unreadable(error) from error
        found = dataset.schema.names
        if not files.files:
            raise InvalidInputError(f"{self._path}: lists no files")
        if missing := [name for name in REQUIRED if name not in found]:
            raise InvalidInputError(
                f"{self._path}: no column {', '.join(missing)}; found {', '.join(found)}"
            )
        names = [*_VALUES, *([NAMES] if NAMES in found else [])]
        for name in ("user_id", "as_of", *names):
            check_column(name, dataset.schema.field(name).type, str(self._path))
        self._check_files(dataset, ["user_id", "as_of", *names])
        return dataset, names

    def _check_files(self, dataset: Any, names: Sequence[str]) -> None:
        """Refuse a file with other types: pyarrow would read it with the first file's types."""
        ids = dataset.schema.field("user_id").type
        for fragment in dataset.get_fragments():
            try:
                schema = fragment.physical_schema
            except self._faults as error:
                raise self._unreadable(error) from error
            for name in names:
                if name in schema.names:
                    check_column(name, schema.field(name).type, fragment.path)
            found = schema.field("user_id").type if "user_id" in schema.names else ids
            if has_numbers(found) not in {has_numbers(ids), None}:
                raise InvalidInputError(
                    f"{fragment.path}: user_id: found {found}, expected {ids} as in the first file"
                )

    def _column(self, dataset: Any, name: str) -> Any:
        try:
            column = dataset.to_table(columns=[name])[name].combine_chunks()
            # pyarrow cannot take rows out of views.
            return column.cast("string") if column.type == "string_view" else column
        except self._faults as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InvalidInputError:
        reason = " ".join(str(error).split())
        return InvalidInputError(f"{self._path}: not Parquet forecasts: {reason}")


def _lengths(column: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return lengths


def _latest(users: Any, made_at: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the checksum and the latest row of each user, ordered by checksum.

    If two rows have the same time, the later row is used.
    """
    checksums = np.fromiter(
        (zlib.crc32(field_of(user)) for user in _each(users)), dtype=np.uint32, count=len(users)
    )
    order = np.lexsort((made_at, checksums))  # stable
    ordered = checksums[order]
    kept = np.ones(order.size, dtype=np.bool_)
    # Users may share a checksum: each keeps their last row.
    shared = np.flatnonzero(ordered[1:] == ordered[:-1])
    starts = np.flatnonzero(np.diff(shared, prepend=-2) > 1)
    for run in np.split(shared, starts[1:]) if shared.size else []:
        rows = [*run.tolist(), int(run[-1]) + 1]
        seen = set()
        for row in reversed(rows):
            user = users[int(order[row])].as_py()
            kept[row] = user not in seen
            seen.add(user)
    return ordered[kept], order[kept]


def _each(users: Any) -> Any:
    """Yield the ids, read in pieces; a null becomes an empty text, which no user has."""
    for first in range(0, len(users), 65536):
        for user in users.slice(first, 65536).to_pylist():
            yield "" if user is None else user


def _microseconds(column: Any, path: Path) -> NDArray[np.int64]:
    """Return microseconds since 1970; a date is its first instant, a time without a zone UTC."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        zone = getattr(column.type, "tz", None)
        times = column.cast(pa.timestamp("us", zone), safe=False)
    except pa.ArrowException as error:
        raise InvalidInputError(f"{path}: as_of: found {column.type}, expected a time") from error
    if times.null_count:
        raise InvalidInputError(f"{path}: as_of: found a null")
    found: NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return found
