"""Staging: inputs of any size and order, split by user into the files that shards read.

Each piece of an input file is read by one task and written as one Arrow file. The file has
``shards`` record batches for each segment of bounded size: batch ``s * shards + k`` holds the rows
of shard ``k`` in segment ``s``, in the input's order. So a shard reads its own rows from every file
and nothing else, and no input is ever held whole in memory. This is a sort-based shuffle. It is
kept on disk so that it survives the process that made it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from adprior_build.data.text_columns import plain_table
from adprior_bulk.inputs.input_counts import PieceCounter
from adprior_bulk.inputs.pieces import PIECE_BYTES, Piece
from adprior_bulk.inputs.preparation import USER, WRONG, prepare_rows
from adprior_bulk.output.durable_files import open_durable, write_durable_text
from adprior_runtime.errors import InvalidInputError

_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 16 << 20
_BUFFER_BYTES: Final = 1 << 20


def shard_of(user_id: str, shards: int) -> int:
    """Return a user's shard; the same on every machine and in every version."""
    return zlib.crc32(user_id.encode()) % shards


def is_staged(piece: Piece, directory: Path) -> bool:
    """Return whether a piece has been split and counted."""
    return all((directory / name).exists() for name in (piece.file_name, piece.counts_name))


def stage_piece(piece: Piece, directory: Path, shards: int) -> None:
    """Write one piece, split by user, with the columns of `prepare_rows`, unless it is there.

    Rows without a user go to shard 0.

    Raises:
        InvalidInputError: The file cannot be read.
    """
    if is_staged(piece, directory):
        return
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    counter = PieceCounter(USER, WRONG, "time" if piece.source.kind == "events" else None)
    writer = None
    with open_durable(directory / piece.file_name) as file:
        for table in _segments(piece):
            counter.add(table)
            if writer is None:
                writer = pa.ipc.new_file(file, table.schema, options=options)
            for batch in _split(table, shards):
                writer.write_batch(batch)
        if writer is not None:
            writer.close()
        write_durable_text(directory / piece.counts_name, counter.counts().to_json())


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


def rows_by_user(table: pa.Table) -> Iterator[tuple[str | None, npt.NDArray[np.int64]]]:
    """Yield each user, sorted by id, with the numbers of their rows in rising order.

    Rows whose id is missing or empty come first, under None.
    """
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


def _disagreement(tables: Sequence[pa.Table]) -> str:
    """Name the column whose types conflict; Arrow's own message may quote a value."""
    first = tables[0].schema
    for table in tables[1:]:
        types = {name: first.field(name).type for name in first.names}
        wrong = [f for f in table.schema if types.get(f.name, f.type) != f.type]
        if wrong:
            found = ", ".join(f"{f.name} is {f.type}" for f in wrong)
            expected = ", ".join(f"{f.name} {types[f.name]}" for f in wrong)
            return f"files disagree about a column: {found}; expected {expected}"
    return "files disagree about a column"


def _segments(piece: Piece) -> Iterator[pa.Table]:
    """Yield a piece's rows in tables of bounded size."""
    held: list[pa.Table] = []
    size = 0
    try:
        # Buffered: otherwise a row group's columns are read whole, however large they are.
        with pq.ParquetFile(piece.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(
                _batch_rows(piece, file.metadata),
                list(piece.row_groups),
                piece.source.wanted,
                use_threads=False,
            ):
                table = plain_table(pa.Table.from_batches([batch]))
                held.append(table)
                size += table.nbytes
                if size >= PIECE_BYTES:
                    yield prepare_rows(piece, pa.concat_tables(held))
                    held, size = [], 0
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"{piece.path}: cannot be read: {reason}") from error
    if held:
        yield prepare_rows(piece, pa.concat_tables(held))


def _batch_rows(piece: Piece, metadata: pq.FileMetaData) -> int:
    """Return the number of rows to read at once: fewer where rows are large, as contexts are."""
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
