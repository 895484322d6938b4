"""One forward pass for many users: their tree passes side by side, padded to the same sizes.

All numbers travel to the device as one array, whose parts `JoinedPass.of` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from adprior_runtime.compiled import Int64Array, WrittenInt32, compiled
from adprior_runtime.engines.tree_pass import TreePass

Array = TypeVar("Array")
"""NumPy's on the host, torch's on the device."""

_POSITIONS_STEP: Final = 128


def power_of_two(size: int) -> int:
    """Return the least power of two that is not smaller; 0 stays 0."""
    return 1 << (size - 1).bit_length() if size else 0


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

    @property
    def numbers(self) -> int:
        """How many whole numbers travel to the device."""
        users, new, _, seen, wanted, pairs = self
        return 2 * users + users * new * (3 + seen) + wanted + 2 * pairs

    def rounded_up(self) -> Self:
        """Return larger sizes that many passes have in common."""
        rounded = type(self)(*map(power_of_two, self))
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
    flat = np.zeros(sizes.numbers, dtype=np.int32)
    first_row = first_pair = 0
    for user in range(sizes.users):
        each = passes[user] if user < len(passes) else _NOTHING
        _place(
            flat,
            sizes.users,
            sizes.new,
            sizes.seen,
            sizes.wanted,
            sizes.pairs,
            user,
            slots[user] if user < len(passes) else spare_slot,
            first_row,
            first_pair,
            each.token_ids,
            each.positions,
            each.visible,
            each.seen.ravel(),
            each.wanted,
            each.pair_rows,
            each.pair_tokens,
        )
        first_row, first_pair = first_row + len(each.wanted), first_pair + len(each.pair_tokens)
    return flat


@compiled
def _place(
    flat: WrittenInt32,
    users: int,
    new: int,
    seen: int,
    wanted: int,
    pairs: int,
    user: int,
    slot: int,
    first_row: int,
    first_pair: int,
    token_ids: Int64Array,
    positions: Int64Array,
    visible: Int64Array,
    seen_places: Int64Array,
    rows: Int64Array,
    pair_rows: Int64Array,
    pair_tokens: Int64Array,
) -> None:
    """Write one user's pass to its places in a joined pass, see `JoinedPass`.

    Args:
        flat: int32, the joined pass.
        users: Its sizes; the next four likewise.
        new: See `PassSizes`.
        seen: Likewise.
        wanted: Likewise.
        pairs: Likewise.
        user: The user's number in the joined pass.
        slot: The user's slot of the cache.
        first_row: Wanted rows of the users before.
        first_pair: Pairs of the users before.
        token_ids: As in `TreePass`; the next six likewise.
        positions: Likewise.
        visible: Likewise.
        seen_places: Likewise, row by row.
        rows: Likewise, ``wanted``.
        pair_rows: Likewise.
        pair_tokens: Likewise.
    """
    count, grid = len(token_ids), users * new
    start = len(positions) - count
    columns = len(seen_places) // count if count else 0
    flat[user], flat[users + user] = slot, start
    ids = 2 * users + user * new  # where each part begins, for this user
    sees = 2 * users + 3 * grid + user * new * seen
    for token in range(new):
        if token < count:
            flat[ids + token] = token_ids[token]
            flat[ids + grid + token] = positions[start + token]
            flat[ids + 2 * grid + token] = visible[token]
        for column in range(seen):
            place = start + token
            if token < count and column < columns:
                place = seen_places[token * columns + column]
            flat[sees + token * seen + column] = place
    row_places = 2 * users + (3 + seen) * grid
    for row in range(len(rows)):
        flat[row_places + first_row + row] = user * new + rows[row]
    pair_places = row_places + wanted + first_pair
    for pair in range(len(pair_rows)):
        flat[pair_places + pair] = first_row + pair_rows[pair]
        flat[pair_places + pairs + pair] = pair_tokens[pair]


def _start(tree_pass: TreePass) -> int:
    return len(tree_pass.positions) - len(tree_pass.token_ids)


_EMPTY: Final = np.zeros(0, dtype=np.int64)
_NOTHING: Final = TreePass(
    token_ids=_EMPTY,
    positions=_EMPTY,
    visible=_EMPTY,
    seen=_EMPTY[:, None],
    wanted=_EMPTY,
    pair_rows=_EMPTY,
    pair_tokens=_EMPTY,
)
"""The pass of a padding user."""
