"""Inputs of any size and order, split by user: what the shards read.

Each piece of an input file is read by one task and written as one Arrow file of record batches,
``shards`` of them for each segment of bounded size: batch ``s * shards + k`` holds shard ``k``'s
rows of segment ``s``, in the input's order. Events and profiles are staged as texts and times, as
`adprior_build` reads them for training. So a shard reads its rows, and only these, from every
file, and nothing is ever held whole. (A sort-based shuffle, kept on disk so that it outlives the
process that made it.)
"""

from __future__ import annotations

import collections
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_build.data.column_map import EventColumns, ProfileColumns
from adprior_build.data.text_columns import plain_table
from adprior_bulk.inputs.input_counts import Counter
from adprior_bulk.inputs.preparation import USER, WRONG, prepare_rows
from adprior_bulk.output.manifest import write_text_whole
from adprior_runtime.errors import InvalidInputError

_PIECE_BYTES: Final = 64 << 20
_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 16 << 20
_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some row groups of one input file.

    Attributes:
        kind: ``users``, ``events`` or ``profiles``.
        number: Its place among those of its kind.
        path: The file.
        row_groups: Which.
        columns: The columns wanted; none for all.
        texts: Columns that are text.
        user: The column of user ids.
        mapped: What the columns of events or profiles are called.
    """

    kind: str
    number: int
    path: Path
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    user: str
    mapped: EventColumns | ProfileColumns | None = None

    @property
    def file_name(self) -> str:
        """What it is called once it is split."""
        return f"{self.kind}-{self.number:06d}.arrow"

    @property
    def counts_name(self) -> str:
        """What the file of its counts is called."""
        return f"{self.kind}-{self.number:06d}.json"


def list_pieces(
    kind: str,
    path: Path,
    *,
    user: str,
    columns: Sequence[str],
    texts: Sequence[str],
    mapped: EventColumns | ProfileColumns | None = None,
) -> list[Piece]:
    """Cut Parquet files into pieces of about 64 MB, or of one row group where that is larger.

    Args:
        kind: See `Piece`.
        path: A file, or a directory of files at any depth.
        user: See `Piece`.
        columns: Columns that every file must have; none for all there are.
        texts: See `Piece`.
        mapped: See `Piece`. All columns of events are read: rows are compared whole.

    Raises:
        InvalidInputError: A file is missing, no Parquet, or lacks a column.
    """
    pieces: list[Piece] = []
    for file in list_files(path):
        metadata = _metadata(file)
        names = metadata.schema.to_arrow_schema().names
        if missing := sorted({user, *columns}.difference(names)):
            raise InvalidInputError(
                f"{file}: no column {', '.join(missing)}; found: {', '.join(names)}"
            )
        if repeated := [name for name, n in collections.Counter(names).items() if n > 1]:
            raise InvalidInputError(f"{file}: the column {repeated[0]} comes more than once")
        for groups in _grouped([metadata.row_group(i) for i in range(metadata.num_row_groups)]):
            piece = Piece(
                kind=kind,
                number=len(pieces),
                path=file,
                row_groups=groups,
                columns=() if _is_read_whole(mapped) else tuple(dict.fromkeys(columns)),
                texts=tuple(texts),
                user=user,
                mapped=mapped,
            )
            pieces.append(piece)
    return pieces


def _is_read_whole(mapped: EventColumns | ProfileColumns | None) -> bool:
    """Tell whether every column counts, not only those that the map names."""
    if isinstance(mapped, ProfileColumns):
        return not mapped.keys
    return mapped is not None


def count_rows(path: Path) -> int:
    """Return how many rows Parquet files have."""
    return sum(int(_metadata(file).num_rows) for file in list_files(path))


def shard_of(user_id: str, shards: int) -> int:
    """Return a user's shard; the same on every machine and in every version."""
    return zlib.crc32(user_id.encode()) % shards


def is_staged(piece: Piece, directory: Path) -> bool:
    """Tell whether a piece has been split and counted."""
    return all((directory / name).exists() for name in (piece.file_name, piece.counts_name))


def stage_piece(piece: Piece, directory: Path, shards: int) -> None:
    """Write one piece, split by user; a piece that is there already is left alone.

    Columns are added: `USER`, the user's id as text (rows without one go to shard 0), `WRONG`, what
    is wrong with the row where its text is not UTF-8, and of events `ROW`; see
    `adprior_bulk.inputs.preparation`.

    Raises:
        InvalidInputError: The file cannot be read.
    """
    target = directory / piece.file_name
    if is_staged(piece, directory):
        return
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    counter = Counter(USER, WRONG, "time" if isinstance(piece.mapped, EventColumns) else None)
    writer = None
    try:
        with fresh.open("wb") as file:
            for table in _segments(piece):
                counter.add(table)
                if writer is None:
                    writer = pa.ipc.new_file(file, table.schema, options=options)
                for batch in _split(table, shards):
                    writer.write_batch(batch)
            if writer is not None:
                writer.close()
            file.flush()
            os.fsync(file.fileno())
        write_text_whole(directory / piece.counts_name, counter.counts().to_json())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def read_shard(directory: Path, kind: str, shard: int, shards: int) -> pa.Table | None:
    """Return a shard's rows of one kind, in the inputs' order; None where there is no input.

    Raises:
        InvalidInputError: Input files disagree about a column's type.
    """
    tables: list[pa.Table] = []
    for path in sorted(directory.glob(f"{kind}-*.arrow")):
        if path.stat().st_size == 0:  # an input file without rows
            continue
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            places = range(shard, reader.num_record_batches, shards)
            batches = [reader.get_batch(place) for place in places]
            tables.append(pa.Table.from_batches(batches, reader.schema))
    if not tables:
        return None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        raise InvalidInputError(f"{kind}: {_disagreement(tables)}") from None


def _disagreement(tables: Sequence[pa.Table]) -> str:
    """Say which column has types that do not go together; Arrow's message may quote a value."""
    first = tables[0].schema
    for table in tables[1:]:
        types = {name: first.field(name).type for name in first.names}
        wrong = [f for f in table.schema if types.get(f.name, f.type) != f.type]
        if wrong:
            found = ", ".join(f"{f.name} is {f.type}" for f in wrong)
            expected = ", ".join(f"{f.name} {types[f.name]}" for f in wrong)
            return f"files disagree about a column: {found}; expected {expected}"
    return "files disagree about a column"


def rows_by_user(table: pa.Table) -> Iterator[tuple[str | None, npt.NDArray[np.int64]]]:
    """Yield each user, by id, and the numbers of their rows, rising; no id and empty ones first."""
    ids = table[USER].combine_chunks().dictionary_encode()
    names = ids.dictionary.to_pylist()
    ranks = np.full(len(names) + 1, -1, dtype=np.int64)
    named = (place for place, name in enumerate(names) if name)
    known = sorted(named, key=lambda place: str(names[place]))
    ranks[known] = np.arange(len(known))
    codes = ids.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    of_row = ranks[codes]
    order = np.argsort(of_row, kind="stable")
    found, starts = np.unique(of_row[order], return_index=True)
    for rank, (first, stop) in zip(
        found.tolist(), pairwise([*starts.tolist(), len(order)]), strict=True
    ):
        yield names[known[rank]] if rank >= 0 else None, order[first:stop]


def list_files(path: Path) -> list[Path]:
    """Return an input's Parquet files: itself, or those in it; hidden ones (``.``, ``_``) not.

    Raises:
        InvalidInputError: There is none.
    """
    if path.is_dir():
        inside = (file.relative_to(path) for file in path.rglob("*.parquet"))
        kept = sorted(file for file in inside if not any(p[0] in "._" for p in file.parts))
        if not kept:
            raise InvalidInputError(f"{path}: no .parquet file in it")
        return [path / file for file in kept]
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file or directory")
    return [path]


def _metadata(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{file}: not Parquet: {' '.join(str(error).split())}") from error


def _grouped(groups: Sequence[pq.RowGroupMetaData]) -> Iterator[tuple[int, ...]]:
    held: list[int] = []
    size = 0
    for index, group in enumerate(groups):
        if held and size + group.total_byte_size > _PIECE_BYTES:
            yield tuple(held)
            held, size = [], 0
        held.append(index)
        size += group.total_byte_size
    if held:
        yield tuple(held)


def _segments(piece: Piece) -> Iterator[pa.Table]:
    """Yield a piece's rows in tables of bounded size."""
    held: list[pa.Table] = []
    size = 0
    try:
        # Buffered: else a row group's columns are read whole, however large they are.
        with pq.ParquetFile(piece.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(
                _batch_rows(piece, file.metadata),
                list(piece.row_groups),
                list(piece.columns) or None,
                use_threads=False,
            ):
                table = plain_table(pa.Table.from_batches([batch]))
                held.append(table)
                size += table.nbytes
                if size >= _PIECE_BYTES:
                    yield prepare_rows(piece, pa.concat_tables(held))
                    held, size = [], 0
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"{piece.path}: cannot be read: {reason}") from error
    if held:
        yield prepare_rows(piece, pa.concat_tables(held))


def _batch_rows(piece: Piece, metadata: pq.FileMetaData) -> int:
    """Return how many rows to read at once: fewer where they are large, as contexts may be."""
    groups = [metadata.row_group(index) for index in piece.row_groups]
    rows = sum(int(group.num_rows) for group in groups)
    size = sum(int(group.total_byte_size) for group in groups)
    return max(1, min(_BATCH_ROWS, rows * _BATCH_BYTES // max(size, 1)))


def _split(table: pa.Table, shards: int) -> Iterator[pa.RecordBatch]:
    """Yield one batch for each shard; a shard's rows keep their order."""
    users = table[USER].combine_chunks().dictionary_encode()
    of_user = np.array([shard_of(u or "", shards) for u in users.dictionary.to_pylist()])
    codes = users.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    of_row = np.where(codes < 0, 0, np.append(of_user, 0)[codes])
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(shards + 1))
    ordered = table.take(pa.array(order)).combine_chunks()
    batches = ordered.to_batches()
    whole = batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)
    for first, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield whole.slice(first, stop - first)
