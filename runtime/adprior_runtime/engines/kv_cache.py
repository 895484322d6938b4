"""The ONNX engine's KV cache: one user's keys and values, for the prompt and for the tree below it.

Keys and values have the same layout, `LAYOUT`. The prompt's keys and values are written once. A
pass adds a piece for its new positions. The pieces are joined when the next pass needs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

LAYOUT: Final = ("layers", "key_value_heads", "past", "head_size")
"""Axes of ``past_keys`` and ``past_values``; a pass has one user."""

NEW_LAYOUT: Final = ("layers", "key_value_heads", "new", "head_size")
"""Axes of the piece that a pass adds."""

POSITIONS_AXIS: Final = LAYOUT.index("past")


@dataclass(slots=True)
class KvCache:
    """One user's keys and values, in pieces.

    Attributes:
        keys, values: Arrays in `LAYOUT`, or values of that layout on the device.
    """

    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def fork(self) -> Self:
        """Return a copy that grows independently; the existing pieces are shared."""
        return type(self)(list(self.keys), list(self.values))

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, on the host."""
        return sum(each.nbytes for each in (*self.keys, *self.values))

    def add(self, keys: Any, values: Any) -> None:
        """Append what a pass computed for its new positions."""
        self.keys.append(keys)
        self.values.append(values)


def empty_piece(past: Any) -> npt.NDArray[Any]:
    """Return keys, or values, of no position.

    Args:
        past: ONNX Runtime's description of the graph input ``past_keys``.
    """
    sizes = [0 if axis == POSITIONS_AXIS else size for axis, size in enumerate(past.shape)]
    return np.zeros(sizes, dtype=np.float32)


def join_pieces(pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Join pieces into one, in place, and return it."""
    if len(pieces) > 1:
        pieces[:] = [np.concatenate(pieces, axis=POSITIONS_AXIS)]
    return pieces[0]
