"""One forward pass for many users: their tree passes side by side, padded to the same sizes.

All numbers travel to the device as one array, whose parts `JoinedPass.of` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.packed_tree import TreePass

Array = TypeVar("Array")
"""NumPy's on the host, torch's on the device."""

_POSITIONS_STEP: Final = 128


class PassSizes(NamedTuple):
    """The sizes of a joined pass.

    Attributes:
        users: Number of users.
        new: Tokens of each.
        longest: Tokens of the longest sequence, new ones included.
        seen: Columns of `JoinedPass.seen`.
        wanted: Rows whose next tokens are asked for, of all users.
        pairs: Log-probabilities that are asked for.
    """

    users: int
    new: int
    longest: int
    seen: int
    wanted: int
    pairs: int

    @classmethod
    def of(cls, passes: Sequence[TreePass]) -> Self:
        """Return the least sizes that users' passes need."""
        new = max(len(each.token_ids) for each in passes)
        return cls(
            users=len(passes),
            new=new,
            longest=max(_start(each) for each in passes) + new,
            seen=max(each.seen.shape[1] for each in passes),
            wanted=sum(len(each.wanted) for each in passes),
            pairs=sum(len(each.pair_tokens) for each in passes),
        )

    def rounded_up(self) -> Self:
        """Return larger sizes that many passes have in common."""
        rounded = type(self)(*(1 << (size - 1).bit_length() for size in self))
        needed = self.longest - self.new + rounded.new
        return rounded._replace(longest=-(-needed // _POSITIONS_STEP) * _POSITIONS_STEP)


class JoinedPass(NamedTuple, Generic[Array]):
    """The whole numbers that the model gets. Padding sees only itself, and is not read.

    Attributes:
        slots: [users], each user's slot of the cache.
        starts: [users], tokens of the sequence before this pass.
        token_ids: [users, new].
        positions: [users, new], position ids.
        visible: [users, new], how many tokens of the sequence's begin each new one sees.
        seen: [users, new, seen], further places of the sequence that it sees, itself included.
        wanted: [wanted], rows of the pass, counted through all users: user times new plus token.
        pair_rows: [pairs], indices into ``wanted``.
        pair_tokens: [pairs].
    """

    slots: Array
    starts: Array
    token_ids: Array
    positions: Array
    visible: Array
    seen: Array
    wanted: Array
    pair_rows: Array
    pair_tokens: Array

    @classmethod
    def of(cls, flat: Any, sizes: PassSizes) -> JoinedPass[Any]:
        """Return the parts of an array, as views."""
        users, new, _, seen, wanted, pairs = sizes
        grid = users * new
        lengths = (users, users, grid, grid, grid, grid * seen, wanted, pairs, pairs)
        ends = [*accumulate(lengths)]
        parts = [flat[end - length : end] for length, end in zip(lengths, ends, strict=True)]
        parts[2:5] = [part.reshape(users, new) for part in parts[2:5]]
        parts[5] = parts[5].reshape(users, new, seen)
        return cls(*parts)


def join_passes(
    passes: Sequence[TreePass], slots: Sequence[int], sizes: PassSizes, spare_slot: int
) -> npt.NDArray[np.int32]:
    """Return users' passes as one array, see `JoinedPass.of`.

    Args:
        passes: Each user's, one or more.
        slots: Each user's slot of the cache.
        sizes: As large as `PassSizes.of` returns, or larger.
        spare_slot: The slot of padding users.
    """
    length = 2 * sizes.users + sizes.wanted + 2 * sizes.pairs
    length += sizes.users * sizes.new * (3 + sizes.seen)
    flat = np.zeros(length, dtype=np.int32)
    joined = JoinedPass.of(flat, sizes)
    joined.slots[:] = spare_slot
    joined.slots[: len(slots)] = slots
    joined.starts[: len(passes)] = [_start(each) for each in passes]
    joined.seen[:] = (joined.starts[:, None] + np.arange(sizes.new))[:, :, None]
    rows = pairs = 0
    for user, each in enumerate(passes):
        count = len(each.token_ids)
        joined.token_ids[user, :count] = each.token_ids
        joined.positions[user, :count] = each.new_positions
        joined.visible[user, :count] = each.visible
        joined.seen[user, :count, : each.seen.shape[1]] = each.seen
        asked = slice(pairs, pairs + len(each.pair_tokens))
        joined.wanted[rows : rows + len(each.wanted)] = each.wanted + user * sizes.new
        joined.pair_rows[asked] = each.pair_rows + rows
        joined.pair_tokens[asked] = each.pair_tokens
        rows, pairs = rows + len(each.wanted), asked.stop
    return flat


def _start(tree_pass: TreePass) -> int:
    return len(tree_pass.positions) - len(tree_pass.token_ids)
