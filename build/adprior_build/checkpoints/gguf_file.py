"""GGUF files: their metadata, and their tensors dequantised one at a time with NumPy.

The format is described in ggml's ``docs/gguf.md``. The header is parsed here because the package's
reader makes one object for each of a vocabulary's 262,144 entries, which takes 12 s.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from adprior_runtime.errors import InvalidInputError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = 32
_SCALARS: Final = ("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?")
"""Types 0 to 7 of a metadata value; 8 is a string, 9 an array."""
_WIDE_SCALARS: Final = {10: "<u8", 11: "<i8", 12: "<f8"}
_STRING: Final = 8
_ARRAY: Final = 9


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Place of a tensor in the file.

    Attributes:
        shape: Rows first, as NumPy has it.
        kind: The number of its quantisation.
        offset: Bytes from the beginning of the file.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """A GGUF file that stays on disk.

    Args:
        path: The file.

    Attributes:
        metadata: Values by key; arrays of numbers are NumPy arrays.

    Raises:
        InvalidInputError: The file is missing, damaged or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            reason = getattr(error, "strerror", None) or "the file is empty"
            raise InvalidInputError(f"{path}: {reason}; expected a GGUF file") from error
        try:
            self.metadata, self._tensors = _Header(self._data, path).read()
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise InvalidInputError(
                f"{path}: the file ends or breaks in its header ({len(self._data)} bytes are here)"
            ) from error
        for name, tensor in self._tensors.items():
            if (end := tensor.offset + self._size(name)) > len(self._data):
                raise InvalidInputError(
                    f"{path}: truncated: tensor {name} ends at byte {end}, the file at byte "
                    f"{len(self._data)}"
                )

    @property
    def names(self) -> list[str]:
        """The tensors' names, in the file's order."""
        return list(self._tensors)

    def value(self, key: str, default: Any = None) -> Any:
        """Return a value of the metadata; without a default it must be there.

        Raises:
            InvalidInputError: The key is missing.
        """
        if key not in self.metadata and default is None:
            raise InvalidInputError(f"{self.path}: its metadata lacks {key}")
        return self.metadata.get(key, default)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, rows first."""
        return self._tensors[name].shape

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor in float32, dequantised.

        Raises:
            InvalidInputError: The package ``gguf`` cannot dequantise it.
        """
        tensor = self._tensors[name]
        kind = GGMLQuantizationType(tensor.kind)
        row_bytes = self._size(name) // prod(tensor.shape[:-1])
        raw = np.frombuffer(self._data, np.uint8, self._size(name), tensor.offset)
        try:
            values = dequantize(raw.reshape(*tensor.shape[:-1], row_bytes), kind)
        except NotImplementedError as error:
            raise InvalidInputError(
                f"{self.path}: tensor {name} is quantised as {kind.name}, which the package gguf "
                "cannot dequantise"
            ) from error
        # A float32 tensor is a view of the file, which cannot be written.
        return np.require(values, np.float32, ["W"]).reshape(tensor.shape)

    def _size(self, name: str) -> int:
        """Return a tensor's size in bytes."""
        tensor = self._tensors[name]
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except (ValueError, KeyError) as error:
            raise InvalidInputError(
                f"{self.path}: tensor {name} has the unknown quantisation {tensor.kind}"
            ) from error
        return prod(tensor.shape) // block * block_bytes


class _Header:
    """Reads a header from its beginning to its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0

    def read(self) -> tuple[dict[str, Any], dict[str, _Tensor]]:
        if (magic := self._data[:4]) != _MAGIC:
            raise InvalidInputError(f"{self._path}: begins with {magic!r}; expected {_MAGIC!r}")
        self._at = 4
        if (version := self._number("<u4")) not in _VERSIONS:
            raise InvalidInputError(
                f"{self._path}: GGUF version {version}; expected one of {_VERSIONS}, little-endian"
            )
        tensors, values = self._number("<u8"), self._number("<u8")
        metadata = {}
        for _ in range(values):
            key = self._string()
            metadata[key] = self._value(self._number("<u4"))
        places = dict(self._place() for _ in range(tensors))
        alignment = int(metadata.get("general.alignment", _ALIGNMENT))
        start = -(-self._at // alignment) * alignment
        return metadata, {
            name: _Tensor(shape, kind, start + offset)
            for name, (shape, kind, offset) in places.items()
        }

    def _place(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name = self._string()
        dimensions = self._numbers("<u8", self._number("<u4"))
        shape = tuple(map(int, dimensions[::-1]))
        return name, (shape, self._number("<u4"), self._number("<u8"))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._numbers(_scalar(kind), 1)[0].item()
        inner, count = self._number("<u4"), self._number("<u8")
        if inner in {_STRING, _ARRAY}:
            read: Callable[[], Any] = self._string
            if inner == _ARRAY:
                read = lambda: self._value(_ARRAY)  # noqa: E731
            return [read() for _ in range(count)]
        return self._numbers(_scalar(inner), count)

    def _number(self, dtype: str) -> int:
        return int(self._numbers(dtype, 1)[0])

    def _numbers(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self._data, dtype, count, self._at)
        self._at += values.nbytes
        return values

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self._data, self._at)
        start, self._at = self._at + 8, self._at + 8 + length
        if self._at > len(self._data):
            raise ValueError("a string ends behind the file's end")
        return self._data[start : self._at].decode()


def _scalar(kind: int) -> str:
    if kind < len(_SCALARS):
        return _SCALARS[kind]
    if kind in _WIDE_SCALARS:
        return _WIDE_SCALARS[kind]
    raise ValueError(f"unknown type {kind} of a metadata value")
