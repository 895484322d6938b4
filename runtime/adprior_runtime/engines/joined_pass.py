"""One forward pass for many users: their tree passes side by side, padded to the same sizes.

All numbers travel to the device as one array, whose parts `JoinedPass.of` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
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
        past, new, seen, wanted, pairs = zip(*(each.shape for each in passes), strict=True)
        return cls(
            users=len(passes),
            new=max(new),
            longest=max(past) + max(new),
            seen=max(seen),
            wanted=sum(wanted),
            pairs=sum(pairs),
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
    shapes = np.fromiter(chain.from_iterable(each.shape for each in passes), dtype=np.int64)
    numbers = passes[0].numbers
    if len(passes) > 1:
        numbers = np.concatenate([each.numbers for each in passes])
    flat = np.zeros(sizes.numbers, dtype=np.int32)
    users, new, _, seen, wanted, pairs = sizes
    every_slot = np.array([*slots, *[spare_slot] * (users - len(passes))])
    _place(flat, users, new, seen, wanted, pairs, every_slot, shapes, numbers)
    return flat


@compiled
def _place(
    flat: WrittenInt32,
    users: int,
    new: int,
    seen: int,
    wanted: int,
    pairs: int,
    slots: Int64Array,
    shapes: Int64Array,
    numbers: Int64Array,
) -> None:
    """Write users' passes to their places in a joined pass, see `JoinedPass`.

    Args:
        flat: int32, the joined pass, zeros.
        users: Its sizes; the next four likewise.
        new: See `PassSizes`.
        seen: Likewise.
        wanted: Likewise.
        pairs: Likewise.
        slots: int64 [users].
        shapes: int64 [5 * given], the `PassShape` of each user but the padding ones.
        numbers: int64, the users' `TreePass.numbers`, one user behind the other.
    """
    grid = users * new
    row_places = 2 * users + (3 + seen) * grid
    pair_places = row_places + wanted
    first_row = first_pair = begin = 0
    for user in range(users):
        start = count = columns = rows = asked = 0
        if 5 * user < len(shapes):
            start, count, columns, rows, asked = shapes[5 * user : 5 * user + 5]
        flat[user], flat[users + user] = slots[user], start
        for part in range(3):
            into = 2 * users + part * grid + user * new
            for token in range(count):
                flat[into + token] = numbers[begin + part * count + token]
        into = 2 * users + 3 * grid + user * new * seen
        for column in range(seen):  # the inner loop is the long one
            given = count if column < columns else 0
            for token in range(given):
                place = numbers[begin + 3 * count + token * columns + column]
                flat[into + token * seen + column] = place
            for token in range(given, new):
                flat[into + token * seen + column] = start + token
        begin += (3 + columns) * count
        for row in range(rows):
            flat[row_places + first_row + row] = user * new + numbers[begin + row]
        begin += rows
        for pair in range(asked):
            flat[pair_places + first_pair + pair] = first_row + numbers[begin + pair]
            flat[pair_places + pairs + first_pair + pair] = numbers[begin + asked + pair]
        begin += 2 * asked
        first_row, first_pair = first_row + rows, first_pair + asked
