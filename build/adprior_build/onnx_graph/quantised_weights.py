"""Matrices stored in 8 bits a weight, and products with them.

A row is cut into blocks. Each block has a scale s and stores every weight w as a whole number q, so
that w is about ``s (q - 128)``.

ONNX Runtime restores the matrices when it loads the graph and computes in single precision, so only
the file is smaller. Its operators that multiply in 8 bits round the other factor as well; then a
difference in the last bit, from another packing of a pass, grows through the layers
(docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from adprior_build.onnx_graph.model_file import ModelFile

_Float32Array = npt.NDArray[np.float32]
_Uint8Array = npt.NDArray[np.uint8]
_Array = npt.NDArray[Any]
_ZERO: Final = 128
_LARGEST: Final = np.float32(127)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """One way to round matrices.

    Attributes:
        block: Numbers that share a scale: a power of 2, 16 or more.
    """

    block: int

    def quantise(self, matrix: _Float32Array) -> tuple[_Uint8Array, _Float32Array]:
        """Return a matrix's numbers, uint8 [rows, blocks, block], and scales, [rows, blocks]."""
        cut = self._cut(matrix)
        scales = np.abs(cut).max(axis=2) / _LARGEST
        divisors = np.where(scales > 0, scales, np.float32(1))
        return (np.rint(cut / divisors[:, :, None]) + _ZERO).astype(np.uint8), scales

    def rounded(self, matrix: _Float32Array) -> _Float32Array:
        """Return the matrix that the stored numbers stand for: [rows, columns]."""
        numbers, scales = self.quantise(matrix)
        values = (numbers.astype(np.float32) - np.float32(_ZERO)) * scales[:, :, None]
        return values.reshape(len(matrix), -1)[:, : matrix.shape[1]]

    def declare(
        self,
        file: ModelFile,
        name: str,
        shape: tuple[int, int],
        load: Callable[[], _Float32Array],
    ) -> list[str]:
        """Declare a matrix's numbers and scales; return the names of both constants."""
        blocks = self._blocks(shape[1])
        later: list[_Float32Array] = []

        def numbers() -> _Uint8Array:
            made, scales = self.quantise(load())
            later.append(scales)
            return made

        # The file is written in the order of declaration: the numbers first.
        return [
            file.weight(f"{name}.numbers", np.uint8, (shape[0], blocks, self.block), numbers),
            file.weight(f"{name}.scales", np.float32, (shape[0], blocks), later.pop),
        ]

    def product(
        self, file: ModelFile, constants: list[str], shape: tuple[int, int], values: str, bias: str
    ) -> str:
        """Append a product: values [n, columns] times the transposed matrix, plus a bias."""
        numbers, scales = constants
        matrix = self._restored(file, numbers, scales, shape[1])
        return file.node("Gemm", values, matrix, *([bias] if bias else []), transB=1)

    def gather(self, file: ModelFile, constants: list[str], places: str, columns: int) -> str:
        """Append nodes that restore the rows at ``places``, int64 [n]: float [n, columns]."""
        numbers, scales = (file.node("Gather", each, places, axis=0) for each in constants)
        return self._restored(file, numbers, scales, columns)

    def _restored(self, file: ModelFile, numbers: str, scales: str, columns: int) -> str:
        values = file.node("Cast", numbers, to=TensorProto.FLOAT)
        values = file.node("Sub", values, file.constant(_ZERO, np.float32))
        values = file.node("Mul", values, file.node("Unsqueeze", scales, file.constant([2])))
        whole = self._blocks(columns) * self.block
        values = file.node("Reshape", values, file.constant([-1, whole]))
        if whole == columns:
            return values
        ends = (file.constant([0]), file.constant([columns]), file.constant([1]))
        return file.node("Slice", values, *ends)

    def _blocks(self, columns: int) -> int:
        return -(-columns // self.block)

    def _cut(self, values: _Array) -> _Array:
        """Return rows in blocks, the last one filled with 0: [rows, blocks, block]."""
        rows, columns = values.shape
        padded = np.zeros((rows, self._blocks(columns) * self.block), dtype=values.dtype)
        padded[:, :columns] = values
        return padded.reshape(rows, -1, self.block)
