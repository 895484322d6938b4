"""The positions that a token sees in packed tree attention: the prompt and its own ancestors."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]
_MASKED: Final = np.finfo(np.float32).min


def additive_mask(visible: _Int64Array, seen: _Int64Array, positions: int) -> _Float32Array:
    """Return the mask that is added to attention scores: float32 [new, positions].

    Args:
        visible: int64 [new], how many positions of the sequence's begin each new one sees.
        seen: int64 [new, any], further positions that it sees.
        positions: The sequence's length, new positions included.
    """
    mask = np.where(np.arange(positions) < visible[:, None], np.float32(0), _MASKED)
    mask[np.arange(len(seen))[:, None], seen] = 0
    return mask
