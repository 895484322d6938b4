"""Rounding to bfloat16, for which NumPy has no type: the upper half of a float32."""

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
