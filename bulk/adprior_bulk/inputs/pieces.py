"""A run's input files, cut into pieces that are read independently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_runtime.errors import InvalidInputError

PIECE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The users of a run: their contexts, or events and profiles to make contexts from.

    Attributes:
        users: Parquet of ``user_id`` and ``context`` (the user context's JSON): a file, or a
            directory of files.
        events: Instead of users: the event log in Parquet, likewise.
        profiles: Profiles in Parquet, likewise; only with events.
        columns: Column map of events and profiles.
        names: Advertiser names by ``#id``, for logs that hold ids.
    """

    users: Path | None = None
    events: Path | None = None
    profiles: Path | None = None
    columns: ColumnMap | None = None
    names: Mapping[str, str] | None = None

    def sources(self) -> dict[str, Path]:
        """Return the paths that were given, by kind: ``users``, ``events``, ``profiles``."""
        kinds = {"users": self.users, "events": self.events, "profiles": self.profiles}
        return {kind: path for kind, path in kinds.items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some row groups of one input file.

    Attributes:
        kind: ``users``, ``events`` or ``profiles``.
        number: Its position among the pieces of its kind.
        path: The file.
        row_groups: Their numbers in the file.
        columns: The columns to read; empty for all.
        texts: Columns that hold text.
        user: The column of user ids.
        mapped: Column names of events or profiles.
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
        """Name of the file of its rows, split by user."""
        return f"{self.kind}-{self.number:06d}.arrow"

    @property
    def counts_name(self) -> str:
        """Name of the file of its counts."""
        return f"{self.kind}-{self.number:06d}.json"


def input_pieces(inputs: Inputs) -> list[Piece]:
    """Return all pieces of a run's inputs.

    Raises:
        InvalidInputError: A file is missing, is not Parquet, or lacks a column.
    """
    found: list[Piece] = []
    if inputs.users is not None:
        columns = ("user_id", "context")
        found += list_pieces(
            "users", inputs.users, user="user_id", columns=columns, texts=("user_id",)
        )
    if inputs.events is not None and inputs.columns is not None:
        events = inputs.columns.events
        found += list_pieces(
            "events",
            inputs.events,
            user=events.user,
            columns=tuple(events.required()),
            texts=tuple(dict.fromkeys(events.named().values())),
            mapped=events,
        )
    if inputs.profiles is not None and inputs.columns is not None:
        profiles = inputs.columns.profiles
        if profiles is None:
            raise InvalidInputError("--profiles: the column map has no table [profiles]")
        found += list_pieces(
            "profiles",
            inputs.profiles,
            user=profiles.user,
            columns=profiles.required(),
            texts=(),
            mapped=profiles,
        )
    return found


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
        kind: See `Piece`, as for all other arguments.
        path: A file, or a directory of files at any depth.
        user: The column of user ids.
        columns: Columns that every file must have; empty for all there are.
        texts: Columns that hold text.
        mapped: Column names. All columns of events are read, since rows are compared whole.

    Raises:
        InvalidInputError: A file is missing, is not Parquet, or lacks a column.
    """
    pieces: list[Piece] = []
    for file in list_files(path):
        metadata = _metadata(file)
        names = metadata.schema.to_arrow_schema().names
        if missing := sorted({user, *columns}.difference(names)):
            raise InvalidInputError(
                f"{file}: no column {', '.join(missing)}; found: {', '.join(names)}"
            )
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
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


def list_files(path: Path) -> list[Path]:
    """Return an input's Parquet files: the file itself, or those in a directory.

    Files and directories whose names begin with ``.`` or ``_`` are skipped.

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


def count_rows(path: Path) -> int:
    """Return the number of rows of an input's Parquet files."""
    return sum(int(_metadata(file).num_rows) for file in list_files(path))


def _is_read_whole(mapped: EventColumns | ProfileColumns | None) -> bool:
    """Return whether all columns are needed, not only those that the map names."""
    if isinstance(mapped, ProfileColumns):
        return not mapped.keys
    return mapped is not None


def _metadata(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{file}: not Parquet: {' '.join(str(error).split())}") from error


def _grouped(groups: Sequence[pq.RowGroupMetaData]) -> Iterator[tuple[int, ...]]:
    held: list[int] = []
    size = 0
    for index, group in enumerate(groups):
        if held and size + group.total_byte_size > PIECE_BYTES:
            yield tuple(held)
            held, size = [], 0
        held.append(index)
        size += group.total_byte_size
    if held:
        yield tuple(held)
