"""Parquet files of forecasts -> batches of records, checked, in bounded memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adprior_client._call.encoding import ROUNDING
from adprior_client.stored.forecast_time import are_believed
from adprior_client.stored.parquet_columns import REQUIRED, check_column
from adprior_client.stored.parquet_files import ForecastFiles
from adprior_client.stored.redis_keys import field_of
from adprior_client.stored.redis_record import (
    MOST_ADVERTISERS,
    MOST_BUNDLES,
    are_narrow,
    encode_records,
)
from adprior_runtime.errors import InvalidInputError

_TYPES: Final[dict[str, Any]] = {
    "as_of": pa.timestamp("us", "UTC"),
    "advertiser_ids": pa.list_(pa.int64()),
    "log_probs": pa.list_(pa.float32()),
    "exact": pa.bool_(),
    "missing_mass": pa.float32(),
    "bundle_id": pa.string(),
}
_BUFFER_BYTES: Final = 1 << 20
"""Of a column of a file: row groups are read piece by piece, however large they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some users' forecasts.

    Attributes:
        rows: How many rows were read for it.
        fields: What each user is found by.
        checksums: uint32 [n], CRC-32 of those.
        as_of_us: int64 [n], microseconds since 1970.
        records: As they are stored.
    """

    rows: int
    fields: list[bytes]
    checksums: NDArray[np.uint32]
    as_of_us: NDArray[np.int64]
    records: list[bytes]


@dataclass(slots=True)
class ForecastReader:
    """Reads the same files as often as it takes, a batch at a time.

    Attributes:
        files: What to read.
        rows: How many rows they have.
        fingerprint: Of their names, sizes and footers: of what was written, not of when.
        bundle_ids: Of the forecasts read so far, by place.
        without_advertisers: Rows of a pass that hold no forecast.
        from_future: Rows of a pass that lie in the future by our clock: left out.
        as_of_us: The earliest and latest time read so far.
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
        """Look at every footer.

        Raises:
            InvalidInputError: A file is no Parquet, lacks a column, or has one of a wrong type.
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
        """Yield the forecasts, so many rows at a time; a user may come more than once.

        Raises:
            InvalidInputError: A row cannot be a forecast; the message has its file and number.
        """
        self.without_advertisers = self.from_future = 0
        for path in self.files.files:
            first = 0
            with _open(path) as file:
                try:
                    for batch in file.iter_batches(size, columns=list(REQUIRED), use_threads=False):
                        yield self._encode(batch, _Place(path, first))
                        first += batch.num_rows
                except (OSError, pa.ArrowException) as error:
                    raise _unreadable(path, error) from error

    def _encode(self, batch: Any, place: _Place) -> Batch:
        columns = {name: _cast(batch.column(name), name, place) for name in REQUIRED}
        lengths = _lengths(columns["advertiser_ids"])
        kept = np.flatnonzero(lengths)
        self.without_advertisers += batch.num_rows - kept.size
        _check(columns, lengths, kept, place)
        as_of_us = columns["as_of"].cast(pa.int64()).fill_null(0).to_numpy()
        believed = are_believed(as_of_us[kept], self._now)
        self.from_future += int(np.count_nonzero(~believed))
        kept = kept[believed]
        ids, log_probs = (
            columns[name].flatten().to_numpy(zero_copy_only=False)
            for name in ("advertiser_ids", "log_probs")
        )
        values = {
            "as_of_us": as_of_us,
            "exact": columns["exact"].fill_null(fill_value=False).to_numpy(zero_copy_only=False),
            "missing_mass": columns["missing_mass"].fill_null(0).to_numpy(),
            "bundles": self._bundles(columns["bundle_id"], place),
        }
        users = columns["user_id"].to_pylist()
        fields = [b"" if user is None else field_of(user) for user in users]
        checksums = [zlib.crc32(item) for item in fields]
        starts = np.cumsum(lengths) - lengths
        records: list[bytes] = [b""] * batch.num_rows
        for length in np.unique(lengths[kept]).tolist():  # nearly always one
            alike = kept[lengths[kept] == length]
            places = starts[alike, None] + np.arange(length)
            _check_advertisers(ids[places], log_probs[places], alike, place)
            narrow = are_narrow(ids[places])
            for chosen in (narrow, ~narrow):
                rows = alike[chosen]
                encoded = encode_records(
                    [checksums[row] for row in rows.tolist()],
                    **{name: column[rows] for name, column in values.items()},
                    advertiser_ids=ids[places[chosen]],
                    log_probs=log_probs[places[chosen]],
                )
                for row, record in zip(rows.tolist(), encoded, strict=True):
                    records[row] = record
        self._note_times(values["as_of_us"][kept])
        return Batch(
            rows=batch.num_rows,
            fields=[fields[row] for row in kept.tolist()],
            checksums=np.array(checksums, dtype=np.uint32)[kept],
            as_of_us=values["as_of_us"][kept],
            records=[records[row] for row in kept.tolist()],
        )

    def _bundles(self, column: Any, place: _Place) -> NDArray[np.uint16]:
        coded = column.fill_null("").dictionary_encode()
        for bundle_id in coded.dictionary.to_pylist():
            self.bundle_ids.setdefault(bundle_id, len(self.bundle_ids))
        if len(self.bundle_ids) > MOST_BUNDLES:
            raise InvalidInputError(f"{place.path}: bundle_id: found over {MOST_BUNDLES} bundles")
        places = [self.bundle_ids[bundle_id] for bundle_id in coded.dictionary.to_pylist()]
        coded_places: NDArray[np.uint16] = np.array(places or [0], dtype=np.uint16)
        chosen: NDArray[np.uint16] = coded_places[coded.indices.to_numpy().astype(np.intp)]
        return chosen

    def _note_times(self, as_of_us: NDArray[np.int64]) -> None:
        if as_of_us.size:
            least, most = int(as_of_us.min()), int(as_of_us.max())
            before = self.as_of_us or (least, most)
            self.as_of_us = (min(least, before[0]), max(most, before[1]))


@dataclass(frozen=True, slots=True)
class _Place:
    """Of a batch: its file, and the number of its first row."""

    path: Path
    first: int

    def error(self, row: int, problem: str) -> InvalidInputError:
        return InvalidInputError(f"{self.path}: row {self.first + row}: {problem}")


def _check(columns: dict[str, Any], lengths: Any, kept: Any, place: _Place) -> None:
    """Refuse rows of ``kept`` that lack something; what the others hold does not matter."""
    for name in ("user_id", "as_of", "exact", "missing_mass"):
        missing = np.flatnonzero(columns[name].is_null().to_numpy(zero_copy_only=False)[kept])
        if missing.size:
            raise place.error(int(kept[missing[0]]), f"{name} is null")
    if lengths.size and lengths.max() > MOST_ADVERTISERS:
        row = int(lengths.argmax())
        raise place.error(
            row, f"found {lengths[row]} advertisers, expected up to {MOST_ADVERTISERS}"
        )
    scored = _lengths(columns["log_probs"])
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


def _check_advertisers(ids: Any, log_probs: Any, rows: Any, place: _Place) -> None:
    """Refuse what no client would rank with."""
    bad = np.flatnonzero(~(np.isfinite(log_probs) & (log_probs <= ROUNDING)).all(axis=1))
    if bad.size:
        raise place.error(int(rows[bad[0]]), "log_probs: expected finite numbers, at most 0")
    ordered = np.sort(ids, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if twice.size:
        raise place.error(int(rows[twice[0]]), "advertiser_ids: an advertiser is named twice")


def _cast(column: Any, name: str, place: _Place) -> Any:
    if name == "user_id":
        if pa.types.is_integer(column.type):
            return column
        expected, said = pa.string(), "text or integers"
    else:
        expected, said = _TYPES[name], str(_TYPES[name])
    if name == "as_of" and pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if name == "as_of" and pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp("us"), safe=False).cast(expected)
    try:
        if name not in {"user_id", "bundle_id"} and pa.types.is_string(column.type):
            raise pa.ArrowInvalid
        return column.cast(expected, safe=name not in {"as_of", "log_probs", "missing_mass"})
    except pa.ArrowException:
        raise InvalidInputError(
            f"{place.path}: {name}: found {column.type}, expected {said}"
        ) from None


def _lengths(column: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = (
        pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    )
    return lengths


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    if isinstance(error, FileNotFoundError):
        return InvalidInputError(
            f"{path}: is gone: were the forecasts replaced meanwhile? Run it again"
        )
    return InvalidInputError(f"{path}: not Parquet forecasts: {' '.join(str(error).split())}")


def _footer(path: Path) -> bytes:
    """Return the end of a file with its metadata: statistics and places of every column."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size - 8 - length, 0))
        return file.read(length)
