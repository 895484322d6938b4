"""Reads Parquet files of forecasts as batches of checked records, in bounded memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adprior_bulk.publish.forecast_checks import (
    Place,
    cast_column,
    check_advertisers,
    check_rows,
    list_lengths,
)
from adprior_client.stored.forecast_time import are_not_in_future
from adprior_client.stored.parquet_columns import REQUIRED, check_column
from adprior_client.stored.parquet_files import ForecastFiles
from adprior_client.stored.redis_keys import field_of
from adprior_client.stored.redis_record import MOST_BUNDLES, are_narrow, encode_records
from adprior_runtime.errors import InvalidInputError

_BUFFER_BYTES: Final = 1 << 20
"""Per column: row groups are read piece by piece, however large they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Forecasts of n users.

    Attributes:
        rows: Rows that were read for it, n or more.
        fields: Each user's field in Redis.
        as_of_us: int64 [n], microseconds since 1970.
        records: The forecasts as they are stored.
    """

    rows: int
    fields: list[bytes]
    as_of_us: NDArray[np.int64]
    records: list[bytes]


@dataclass(slots=True)
class ForecastReader:
    """Reads the same files in batches, as often as necessary.

    Attributes:
        files: The files.
        rows: Their number of rows.
        fingerprint: Hash of their names, sizes and footers; their times do not count.
        bundle_ids: Position of each bundle id found so far.
        without_advertisers: Rows of the current pass that hold no forecast.
        from_future: Rows of the current pass that are left out: they lie in the future.
        as_of_us: The earliest and latest time found so far.
    """

    files: ForecastFiles
    rows: int = 0
    fingerprint: str = ""
    bundle_ids: dict[str, int] = field(default_factory=dict)
    without_advertisers: int = 0
    from_future: int = 0
    as_of_us: tuple[int, int] | None = None
    _now: datetime = field(default_factory=partial(datetime.now, UTC), repr=False)

    def __post_init__(self) -> None:
        """Check every footer.

        Raises:
            InvalidInputError: A file is not Parquet, lacks a column, or has one of a wrong type.
        """
        digest = hashlib.sha256()
        for path, name in zip(self.files.files, self.files.names, strict=True):
            with _open(path) as file:
                found = file.schema_arrow.names
                if missing := [column for column in REQUIRED if column not in found]:
                    raise InvalidInputError(
                        f"{path}: no column {', '.join(missing)}; found {', '.join(found)}"
                    )
                for column in REQUIRED:
                    check_column(column, file.schema_arrow.field(column).type, str(path))
                self.rows += file.metadata.num_rows
            digest.update(f"{name}\n{path.stat().st_size}\n".encode() + _footer(path))
        self.fingerprint = digest.hexdigest()[:12]

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the forecasts of ``size`` rows at a time; a user may come more than once.

        Raises:
            InvalidInputError: A row is not a valid forecast; the message has its file and number.
        """
        self.without_advertisers = self.from_future = 0
        for path in self.files.files:
            first = 0
            with _open(path) as file:
                try:
                    for batch in file.iter_batches(size, columns=list(REQUIRED), use_threads=False):
                        yield self._encode(batch, Place(path, first))
                        first += batch.num_rows
                except (OSError, pa.ArrowException) as error:
                    raise _unreadable(path, error) from error

    def _encode(self, batch: Any, place: Place) -> Batch:
        columns = {name: cast_column(batch.column(name), name, place) for name in REQUIRED}
        lengths = list_lengths(columns["advertiser_ids"])
        kept = np.flatnonzero(lengths)
        self.without_advertisers += batch.num_rows - kept.size
        check_rows(columns, lengths, kept, place)
        as_of_us = columns["as_of"].cast(pa.int64()).fill_null(0).to_numpy()
        is_valid = are_not_in_future(as_of_us[kept], self._now)
        self.from_future += int(np.count_nonzero(~is_valid))
        kept = kept[is_valid]
        users = columns["user_id"].to_pylist()
        fields = [b"" if user is None else field_of(user) for user in users]
        values = {
            "as_of_us": as_of_us,
            "exact": columns["exact"].fill_null(fill_value=False).to_numpy(zero_copy_only=False),
            "missing_mass": columns["missing_mass"].fill_null(0).to_numpy(),
            "bundles": self._bundles(columns["bundle_id"], place),
        }
        records = _records(columns, values, lengths, kept, fields, place)
        self._add_times(as_of_us[kept])
        return Batch(
            rows=batch.num_rows,
            fields=[fields[row] for row in kept.tolist()],
            as_of_us=as_of_us[kept],
            records=[records[row] for row in kept.tolist()],
        )

    def _bundles(self, column: Any, place: Place) -> NDArray[np.uint16]:
        """Return the position of each row's bundle id."""
        coded = column.fill_null("").dictionary_encode()
        for bundle_id in coded.dictionary.to_pylist():
            self.bundle_ids.setdefault(bundle_id, len(self.bundle_ids))
        if len(self.bundle_ids) > MOST_BUNDLES:
            raise InvalidInputError(f"{place.path}: bundle_id: found over {MOST_BUNDLES} bundles")
        places = [self.bundle_ids[bundle_id] for bundle_id in coded.dictionary.to_pylist()]
        coded_places: NDArray[np.uint16] = np.array(places or [0], dtype=np.uint16)
        chosen: NDArray[np.uint16] = coded_places[coded.indices.to_numpy().astype(np.intp)]
        return chosen

    def _add_times(self, as_of_us: NDArray[np.int64]) -> None:
        if as_of_us.size:
            least, most = int(as_of_us.min()), int(as_of_us.max())
            before = self.as_of_us or (least, most)
            self.as_of_us = (min(least, before[0]), max(most, before[1]))


def _records(
    columns: dict[str, Any],
    values: dict[str, NDArray[Any]],
    lengths: NDArray[np.int64],
    kept: NDArray[np.int64],
    fields: Sequence[bytes],
    place: Place,
) -> list[bytes]:
    """Return the record of each kept row, encoded together with the rows of the same shape."""
    ids, log_probs = (
        columns[name].flatten().to_numpy(zero_copy_only=False)
        for name in ("advertiser_ids", "log_probs")
    )
    starts = np.cumsum(lengths) - lengths
    records: list[bytes] = [b""] * len(fields)
    for length in np.unique(lengths[kept]).tolist():  # nearly always one
        alike = kept[lengths[kept] == length]
        places = starts[alike, None] + np.arange(length)
        check_advertisers(ids[places], log_probs[places], alike, place)
        narrow = are_narrow(ids[places])
        for chosen in (narrow, ~narrow):
            rows = alike[chosen]
            encoded = encode_records(
                [zlib.crc32(fields[row]) for row in rows.tolist()],
                as_of_us=values["as_of_us"][rows],
                exact=values["exact"][rows],
                missing_mass=values["missing_mass"][rows],
                bundles=values["bundles"][rows],
                advertiser_ids=ids[places[chosen]],
                log_probs=log_probs[places[chosen]],
            )
            for row, record in zip(rows.tolist(), encoded, strict=True):
                records[row] = record
    return records


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    if isinstance(error, FileNotFoundError):
        return InvalidInputError(
            f"{path}: no longer exists: were the forecasts replaced meanwhile? Run it again"
        )
    return InvalidInputError(f"{path}: not Parquet forecasts: {' '.join(str(error).split())}")


def _footer(path: Path) -> bytes:
    """Return a file's Parquet metadata: the statistics and positions of every column."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size - 8 - length, 0))
        return file.read(length)
