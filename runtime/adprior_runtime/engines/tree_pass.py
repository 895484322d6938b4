"""What one user's forward pass adds to a packed tree, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.tree_mask import additive_mask

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]


class PassShape(NamedTuple):
    """How many numbers a pass has.

    Attributes:
        past: Tokens of the sequence before the pass.
        new: Tokens that the pass adds.
        seen: Columns of `TreePass.seen`.
        wanted: New tokens after which log-probabilities are wanted.
        pairs: Log-probabilities that are wanted.
    """

    past: int
    new: int
    seen: int
    wanted: int
    pairs: int


@dataclass(slots=True)
class TreePass:
    """The tokens that a forward pass adds, and what it is asked for.

    The numbers stand in one array, so that many users' can be joined by one copy.

    Attributes:
        shape: How many numbers there are.
        positions: int64 [past + new], of all tokens that the new ones may see.
        numbers: int64 [any]: `token_ids`, `new_positions`, `visible`, `seen` row by row, `wanted`,
            `pair_rows` and `pair_tokens`, one behind the other.
    """

    shape: PassShape
    positions: _Int64Array
    numbers: _Int64Array

    @classmethod
    def of(
        cls,
        *,
        token_ids: _Int64Array,
        positions: _Int64Array,
        visible: _Int64Array,
        seen: _Int64Array,
        wanted: _Int64Array,
        pair_rows: _Int64Array,
        pair_tokens: _Int64Array,
    ) -> Self:
        """Return a pass of parts that are described below as properties."""
        past, new = len(positions) - len(token_ids), len(token_ids)
        parts = (
            token_ids,
            positions[past:],
            visible,
            seen.ravel(),
            wanted,
            pair_rows,
            pair_tokens,
        )
        shape = PassShape(past, new, seen.shape[1], len(wanted), len(pair_rows))
        return cls(shape, positions, np.concatenate(parts))

    @property
    def token_ids(self) -> _Int64Array:
        """The new tokens: int64 [new]."""
        return self.numbers[: self.shape.new]

    @property
    def new_positions(self) -> _Int64Array:
        """The positions of the new tokens: int64 [new]."""
        return self.positions[self.shape.past :]

    @property
    def visible(self) -> _Int64Array:
        """How many tokens of the sequence's begin each new one sees: int64 [new]."""
        return self.numbers[2 * self.shape.new : 3 * self.shape.new]

    @property
    def seen(self) -> _Int64Array:
        """Further tokens that each new one sees, itself included: int64 [new, seen]."""
        _, new, seen, _, _ = self.shape
        return self.numbers[3 * new : (3 + seen) * new].reshape(new, seen)

    @property
    def wanted(self) -> _Int64Array:
        """Indices of new tokens, one or more, distinct and rising: int64 [wanted]."""
        end = len(self.numbers) - 2 * self.shape.pairs
        return self.numbers[end - self.shape.wanted : end]

    @property
    def pair_rows(self) -> _Int64Array:
        """Indices into ``wanted``: int64 [pairs].

        One or more, but for a pass that the device asks itself
        (`adprior_runtime.engines.working_ahead`).
        """
        end = len(self.numbers) - self.shape.pairs
        return self.numbers[end - self.shape.pairs : end]

    @property
    def pair_tokens(self) -> _Int64Array:
        """The log-probability of each after its row is wanted: int64 [pairs]."""
        return self.numbers[len(self.numbers) - self.shape.pairs :]

    def mask(self) -> _Float32Array:
        """Return what is added to the attention scores: float32 [new, past + new]."""
        return additive_mask(self.visible, self.seen, len(self.positions))
