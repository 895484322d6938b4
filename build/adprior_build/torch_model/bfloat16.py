"""Rounding to bfloat16, for which NumPy has no type: the upper half of a float32.

Also the product of `adprior_runtime.engines.torch_products` in NumPy, which the engine is checked
against.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Float32Array = npt.NDArray[np.float32]


class Bfloat16:
    """Rounds matrices to bfloat16: 8 significant bits, to the nearest, ties to even."""

    def encoded(self, values: _Float32Array) -> npt.NDArray[np.uint16]:
        """Return the bits of the rounded values; NaN stays NaN."""
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        carry = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        rounded = np.where(np.isnan(values), bits | np.uint32(0x400000), bits + carry)
        return (rounded >> np.uint32(16)).astype(np.uint16)

    def rounded(self, matrix: _Float32Array) -> _Float32Array:
        """Return the values that are stored, in single precision."""
        return (self.encoded(matrix).astype(np.uint32) << np.uint32(16)).view(np.float32)


def product_in_parts(left: _Float32Array, right: _Float32Array) -> _Float32Array:
    """Multiply two matrices in parts of bfloat16.

    Args:
        left: float32 [rows, inputs].
        right: float32 [inputs, outputs].

    Returns:
        float32 [rows, outputs].
    """
    lefts, rights = _parts(left), _parts(right)
    total = np.zeros((len(left), right.shape[1]), dtype=np.float32)
    for order in (2, 1, 0):  # the smallest products first
        for first in range(order + 1):
            if (factor := rights[order - first]).any():
                total += lefts[first] @ factor
    return total


def _parts(values: _Float32Array) -> list[_Float32Array]:
    parts = []
    for _ in range(3):
        parts.append(Bfloat16().rounded(values))
        values = values - parts[-1]
    return parts
