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
        events: Instead of users: the event log in Parquet, a file or a directory.
        profiles: Profiles in Parquet, a file or a directory; only with events.
        columns: Column map of events and profiles.
        names: Advertiser names by ``#id``, for logs that hold ids.
    """

    users: Path | None = None
    events: Path | None = None
    profiles: Path | None = None
    columns: ColumnMap | None = None
    names: Mapping[str, str] | None = None

    def paths(self) -> dict[str, Path]:
        """Return the paths that were given, by kind: ``users``, ``events``, ``profiles``."""
        kinds = {"users": self.users, "events": self.events, "profiles": self.profiles}
        return {kind: path for kind, path in kinds.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Source:
    """One input: a file, or a directory of files at any depth.

    Attributes:
        path: The file or directory.
        mapped: Column names of events or profiles; None for users with contexts.
    """

    path: Path
    mapped: EventColumns | ProfileColumns | None = None

    @property
    def kind(self) -> str:
        """``users``, ``events`` or ``profiles``."""
        if self.mapped is None:
            return "users"
        return "events" if isinstance(self.mapped, EventColumns) else "profiles"

    @property
    def user(self) -> str:
        """The column of user ids."""
        return "user_id" if self.mapped is None else self.mapped.user

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that every file must have."""
        return ("user_id", "context") if self.mapped is None else tuple(self.mapped.required())

    @property
    def wanted(self) -> list[str] | None:
        """Columns to read; None for all, since repeated events are compared whole."""
        if isinstance(self.mapped, EventColumns) or (self.mapped and not self.mapped.keys):
            return None
        return list(dict.fromkeys(self.required))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some row groups of one file of a source; ``number`` counts the pieces of the source."""

    source: Source
    number: int
    path: Path
    row_groups: tuple[int, ...]

    @property
    def file_name(self) -> str:
        """Name of the file of its rows, split by user."""
        return f"{self.source.kind}-{self.number:06d}.arrow"

    @property
    def counts_name(self) -> str:
        """Name of the file of its counts."""
        return f"{self.source.kind}-{self.number:06d}.json"


def input_pieces(inputs: Inputs) -> list[Piece]:
    """Return all pieces of a run's inputs; errors as in `list_pieces`."""
    pieces: list[Piece] = []
    for kind, path in inputs.paths().items():
        mapped = getattr(inputs.columns, kind, None)
        if kind == "profiles" and mapped is None:
            raise InvalidInputError("--profiles: the column map has no table [profiles]")
        pieces += list_pieces(Source(path, mapped))
    return pieces


def list_pieces(source: Source) -> list[Piece]:
    """Cut Parquet files into pieces of about 64 MB, or of one row group where that is larger.

    Raises:
        InvalidInputError: A file is missing, is not Parquet, or lacks or repeats a column.
    """
    pieces: list[Piece] = []
    for file in list_files(source.path):
        metadata = _metadata(file)
        names = metadata.schema.to_arrow_schema().names
        if missing := sorted({source.user, *source.required}.difference(names)):
            raise InvalidInputError(
                f"{file}: no column {', '.join(missing)}; found: {', '.join(names)}"
            )
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise InvalidInputError(f"{file}: the column {repeated[0]} comes more than once")
        for groups in _grouped([metadata.row_group(i) for i in range(metadata.num_row_groups)]):
            piece = Piece(source=source, number=len(pieces), path=file, row_groups=groups)
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
