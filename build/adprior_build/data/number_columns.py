"""Reads columns of numbers and lists; errors name the file, the column and the row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ragged:
    """A column of lists: row i is ``values[starts[i]:ends[i]]``, empty for a null."""

    values: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, table: pa.Table, name: str, item: pa.DataType) -> Ragged:
        """Read a column of lists; a null inside a list is refused."""
        lists = cast_column(path, table, name, pa.large_list(item))
        offsets = lists.offsets.to_numpy()
        starts, ends = offsets[:-1], offsets[1:]
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        if lists.values.null_count:
            raise InvalidInputError(f"{path}: {name}: found a null inside a list")
        return cls(
            values=lists.values.to_numpy(), starts=starts, ends=np.where(present, ends, starts)
        )

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the length of each list."""
        return self.ends - self.starts

    def row(self, index: int) -> npt.NDArray[Any]:
        """Return the list of one row."""
        return self.values[self.starts[index] : self.ends[index]]


def hash_requests(path: Path, table: pa.Table) -> npt.NDArray[np.uint64]:
    """Return a hash of each row's ``request``, the same in every run."""
    try:
        column = table["request"].combine_chunks().dictionary_encode()
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"{path}: request: found {table['request'].type}, expected numbers or text"
        ) from error
    refuse_rows(
        path, "request", column.is_null().to_numpy(zero_copy_only=False), "expected no null"
    )
    digests = [
        hashlib.blake2b(repr(value).encode(), digest_size=8).digest()
        for value in column.dictionary.to_pylist()
    ]
    hashes = np.frombuffer(b"".join(digests), dtype=np.uint64)
    rows: npt.NDArray[np.uint64] = hashes[column.indices.to_numpy()]
    return rows


def read_numbers(path: Path, table: pa.Table, name: str, kind: pa.DataType) -> npt.NDArray[Any]:
    """Read a column without nulls."""
    column = cast_column(path, table, name, kind)
    refuse_rows(path, name, column.is_null().to_numpy(zero_copy_only=False), "found a null")
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def cast_column(path: Path, table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column cast to a type.

    Raises:
        InvalidInputError: The message names the type that was found.
    """
    try:
        return table[name].combine_chunks().cast(kind)
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"{path}: {name}: found {table[name].type}, expected {kind}: "
            f"{' '.join(str(error).split())}"
        ) from error


def refuse_rows(path: Path, name: str, bad: npt.NDArray[np.bool_], expected: str) -> None:
    """Refuse a column with bad rows.

    Raises:
        InvalidInputError: The message names the first bad row.
    """
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidInputError(
            f"{path}: {name}: row {row} (from 0), and {int(bad.sum()) - 1} more: {expected}"
        )
