"""What one user's forward pass adds to a packed tree, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.tree_mask import additive_mask

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePass:
    """The tokens that a forward pass adds, and what it is asked for.

    Attributes:
        token_ids: int64 [new].
        positions: int64 [past + new], of all tokens that the new ones may see.
        visible: int64 [new], how many tokens of the sequence's begin each new one sees.
        seen: int64 [new, any], further tokens that it sees, itself included.
        wanted: int64 [wanted], one or more indices of new tokens, distinct and rising.
        pair_rows: int64 [pairs], indices into ``wanted``; one or more, but for a pass that the
            device asks itself (`adprior_runtime.engines.working_ahead`).
        pair_tokens: int64 [pairs]: the log-probability of each after its row is wanted.
    """

    token_ids: _Int64Array
    positions: _Int64Array
    visible: _Int64Array
    seen: _Int64Array
    wanted: _Int64Array
    pair_rows: _Int64Array
    pair_tokens: _Int64Array

    @property
    def new_positions(self) -> _Int64Array:
        """The positions of the new tokens: int64 [new]."""
        return self.positions[len(self.positions) - len(self.token_ids) :]

    def mask(self) -> _Float32Array:
        """Return what is added to the attention scores: float32 [new, past + new]."""
        return additive_mask(self.visible, self.seen, len(self.positions))
