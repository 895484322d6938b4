"""Matrix products of the torch engine: in single precision, or in parts of bfloat16.

A GPU multiplies bfloat16 many times as fast as single precision. But bfloat16 has 8 significant
bits, and the certificate needs more (`adprior_runtime.search.rounding`). So a factor x is split::

    x = a + b + c    a = bfloat16(x),  b = bfloat16(x - a),  c = bfloat16(x - a - b)

Three parts hold a number of single precision exactly, unless it is below 2^-110. Part i of one
factor is multiplied with part j of the other if i + j < 3, counted from 0. What is left out is
about 2^-24 of the whole. The product of two parts is exact in single precision, and such products
are summed in single precision. A matrix whose numbers are bfloat16 has one part, and needs 3
products; others need 6.

The parts of the values are stacked as rows, so each part of the matrix is read once. To join parts
along the inputs instead would also need one product, but 3 copies of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it

from adprior_runtime.engines.registry import BFLOAT16_PARTS

_PARTS: Final = 3
"""With two parts, a third of the forecasts lose their certificate (docs/search.md)."""


class Matrix(Protocol):
    """A matrix, [outputs, inputs], and how values are multiplied with it."""

    @property
    def outputs(self) -> int:
        """Number of rows."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    def product(self, values: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply values with the matrix.

        Args:
            values: float32 [..., inputs].
            bias: float32 [outputs], added to each product; None for none.

        Returns:
            float32 [..., outputs].
        """
        ...

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Return rows of the matrix: float32 [..., inputs] for int64 [...]."""
        ...

    def split(self, most: int) -> Sequence[Matrix]:
        """Return the rows in blocks, whose products hold ``most`` numbers for each row of values.

        Args:
            most: The largest number.
        """
        ...


@dataclass(frozen=True, slots=True)
class SingleMatrix:
    """A `Matrix` that multiplies in single precision.

    Attributes:
        numbers: float32 [outputs, inputs].
    """

    numbers: torch.Tensor

    @property
    def outputs(self) -> int:
        """See `Matrix`."""
        return len(self.numbers)

    @property
    def device(self) -> torch.device:
        """See `Matrix`."""
        return self.numbers.device

    def product(self, values: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """See `Matrix`."""
        return F.linear(values, self.numbers, bias)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """See `Matrix`."""
        return F.embedding(indices, self.numbers)

    def split(self, most: int) -> Sequence[SingleMatrix]:
        """See `Matrix`."""
        return [SingleMatrix(block) for block in torch.split(self.numbers, most)]


@dataclass(frozen=True, slots=True)
class MatrixInParts:
    """A `Matrix` that multiplies in parts of bfloat16.

    Attributes:
        parts: [outputs, inputs] each, the largest first, `_held_type`.
    """

    parts: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, numbers: torch.Tensor) -> MatrixInParts:
        """Split a matrix, float32 or bfloat16; parts that are 0 are left out."""
        parts = split_numbers(numbers)
        while len(parts) > 1 and not parts[-1].any():
            parts.pop()
        held = _held_type(numbers.device)
        return cls(tuple(part.to(held) for part in parts))

    @property
    def outputs(self) -> int:
        """See `Matrix`."""
        return len(self.parts[0])

    @property
    def device(self) -> torch.device:
        """See `Matrix`."""
        return self.parts[0].device

    def product(self, values: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """See `Matrix`. Infinite values give NaN."""
        split = split_numbers(values.flatten(0, -2))
        split.reverse()  # small products first: the last sum alone rounds in full
        products: list[torch.Tensor] = []
        for number in reversed(range(len(self.parts))):
            used = split[number:]
            stacked = multiply_parts(torch.cat(used), self.parts[number])
            products += stacked.chunk(len(used))
        total = products[0]
        for product in products[1:]:
            total += product
        if bias is not None:
            total += bias
        return total.view(*values.shape[:-1], self.outputs)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """See `Matrix`: the sum of the parts."""
        smallest, *larger = (F.embedding(indices, part).float() for part in reversed(self.parts))
        for part in larger:
            smallest = smallest + part
        return smallest

    def split(self, most: int) -> Sequence[MatrixInParts]:
        """See `Matrix`. Three products are stacked, and a power of two keeps blocks aligned."""
        size = max(1, most // 4)
        blocks = zip(*(torch.split(part, size) for part in self.parts), strict=True)
        return [MatrixInParts(block) for block in blocks]


def hold_matrix(numbers: torch.Tensor, products: str) -> Matrix:
    """Return a matrix that multiplies as a name of `adprior_runtime.engines.registry.TORCH` says.

    Args:
        numbers: float32 or bfloat16 [outputs, inputs].
        products: The name.
    """
    if products == BFLOAT16_PARTS:
        return MatrixInParts.of(numbers)
    return SingleMatrix(numbers.float())


def split_numbers(numbers: torch.Tensor) -> list[torch.Tensor]:
    """Return 3 parts of float32 numbers or 1 of bfloat16, as bfloat16, the largest first.

    Zeros have parts of 0. The second part of an infinite number is NaN, and so is that of a number
    that rounds to infinity: one above 3.3895e38.
    """
    parts = [numbers.bfloat16()]
    left = numbers
    while numbers.dtype != torch.bfloat16 and len(parts) < _PARTS:
        left = left - parts[-1].float()
        parts.append(left.bfloat16())
    return parts


def multiply_parts(values: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Return values @ part.T, summed in single precision: float32 [rows, outputs].

    This is what differs between devices. torch has the product of bfloat16 with a result in single
    precision on GPUs only (since 2.8). On a CPU, both factors are float32 numbers.

    Args:
        values: bfloat16 [rows, inputs].
        part: A part of a matrix, in `_held_type`.
    """
    if part.dtype == torch.bfloat16:
        return torch.mm(values, part.mT, out_dtype=torch.float32)
    return F.linear(values.float(), part)


def _held_type(device: torch.device) -> torch.dtype:
    """Return the type of a matrix's parts; their numbers are bfloat16 in any case."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
