"""Weights rounded to a few bits, block by block, as ONNX Runtime's ``MatMulNBits`` takes them.

A row is cut into blocks. Each block has a scale s and stores every weight w as a whole number q, so
that w is about ``s (q - zero)``, where ``zero`` is half of the range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from adprior_build.onnx_graph.model_file import ModelFile

_Float32Array = npt.NDArray[np.float32]
_Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """One way to round matrices.

    Attributes:
        bits: 4 or 8.
        block: Weights that share a scale: a power of 2, 16 or more.
        level: ``accuracy_level`` of the operator: 0 computes in single precision, 4 rounds the
            values to 8 bits too, by row and block.
    """

    bits: int
    block: int
    level: int

    @property
    def attributes(self) -> dict[str, int]:
        """The operator's attributes."""
        return {"bits": self.bits, "block_size": self.block, "accuracy_level": self.level}

    @property
    def _zero(self) -> int:
        return 1 << (self.bits - 1)

    def quantise(self, matrix: _Float32Array) -> tuple[_Uint8Array, _Float32Array]:
        """Round a matrix.

        Args:
            matrix: [rows, columns].

        Returns:
            The stored numbers, uint8 [rows, blocks, bytes of a block], two to a byte if they have 4
            bits, the first in the low half; and the scales, [rows, blocks].
        """
        rows, columns = matrix.shape
        blocks = -(-columns // self.block)
        padded = np.zeros((rows, blocks * self.block), dtype=np.float32)
        padded[:, :columns] = matrix
        cut = padded.reshape(rows, blocks, self.block)
        scales = np.abs(cut).max(axis=2) / np.float32(self._zero - 1)
        divisors = np.where(scales > 0, scales, np.float32(1))
        numbers = (np.rint(cut / divisors[:, :, None]) + self._zero).astype(np.uint8)
        if self.bits == 4:
            numbers = numbers[:, :, 0::2] | numbers[:, :, 1::2] << 4
        return numbers, scales

    def rounded(self, matrix: _Float32Array) -> _Float32Array:
        """Return the matrix that the stored numbers stand for: [rows, columns]."""
        numbers, scales = self.quantise(matrix)
        if self.bits == 4:
            numbers = np.stack([numbers & 15, numbers >> 4], axis=3).reshape(
                *numbers.shape[:2], self.block
            )
        values = (numbers.astype(np.float32) - np.float32(self._zero)) * scales[:, :, None]
        return values.reshape(len(matrix), -1)[:, : matrix.shape[1]]

    def declare(
        self,
        file: ModelFile,
        name: str,
        shape: tuple[int, int],
        load: Callable[[], _Float32Array],
    ) -> list[str]:
        """Declare a matrix's stored numbers and scales; return the names of both constants."""
        rows, columns = shape
        blocks, size = -(-columns // self.block), self.block * self.bits // 8
        later: list[_Float32Array] = []

        def numbers() -> _Uint8Array:
            made, scales = self.quantise(load())
            later.append(scales)
            return made

        # The file is written in the order of declaration: the numbers first.
        return [
            file.weight(f"{name}.numbers", np.uint8, (rows, blocks, size), numbers),
            file.weight(f"{name}.scales", np.float32, (rows, blocks), later.pop),
        ]

    def gather(self, file: ModelFile, constants: list[str], places: str, columns: int) -> str:
        """Append nodes that restore the rows at ``places``, int64 [n]: float [n, columns]."""
        numbers, scales = (file.node("Gather", each, places, axis=0) for each in constants)
        if self.bits == 4:
            low = file.node("BitwiseAnd", numbers, file.constant(15, np.uint8))
            shift = file.constant(4, np.uint8)
            high = file.node("BitShift", numbers, shift, direction="RIGHT")
            last = file.constant([3])
            pair = [file.node("Unsqueeze", half, last) for half in (low, high)]
            numbers = file.node("Concat", *pair, axis=3)
        numbers = file.node(
            "Reshape", numbers, file.constant([0, -(-columns // self.block), self.block])
        )
        values: Any = file.node("Cast", numbers, to=TensorProto.FLOAT)
        values = file.node("Sub", values, file.constant(self._zero, np.float32))
        values = file.node("Mul", values, file.node("Unsqueeze", scales, file.constant([2])))
        whole = -(-columns // self.block) * self.block
        values = file.node("Reshape", values, file.constant([-1, whole]))
        if whole != columns:
            ends = (file.constant([0]), file.constant([columns]), file.constant([1]))
            values = file.node("Slice", values, *ends)
        return str(values)
