from __future__ import annotations

import numpy as np
import pytest

from adprior_runtime.engines.joined_pass import JoinedPass, PassSizes, join_passes
from adprior_runtime.engines.tree_pass import TreePass


def _pass(seed: int, past: int, new: int, seen: int) -> TreePass:
    random = np.random.default_rng(seed)
    wanted = np.flatnonzero(random.random(new) < 0.7)
    wanted = wanted if len(wanted) else np.zeros(1, dtype=np.int64)
    return TreePass.of(
        token_ids=random.integers(0, 99, new),
        positions=random.integers(0, 99, past + new),
        visible=random.integers(0, past + 1, new),
        seen=random.integers(0, past + new, (new, seen)),
        wanted=wanted,
        pair_rows=np.sort(random.integers(0, len(wanted), 9)),
        pair_tokens=random.integers(0, 99, 9),
    )


@pytest.mark.parametrize("is_rounded", [False, True])
def test_users_passes_stand_side_by_side(is_rounded: bool) -> None:
    passes = [_pass(1, 5, 3, 1), _pass(2, 300, 1, 4), _pass(3, 0, 6, 2)]
    slots = [4, 2, 7]
    sizes = PassSizes.of(passes)
    assert sizes[:4] == (3, 6, 306, 4)
    if is_rounded:
        sizes = sizes.rounded_up()
    flat = join_passes(passes, slots, sizes, 9)
    assert flat.dtype == np.int32
    joined = JoinedPass.of(flat, sizes)
    assert joined.slots.tolist() == [*slots, *[9] * (sizes.users - 3)]
    assert joined.starts.tolist() == [5, 300, 0, *[0] * (sizes.users - 3)]
    row = pair = 0
    for user, each in enumerate(passes):
        new, start = each.shape.new, each.shape.past
        np.testing.assert_array_equal(joined.token_ids[user, :new], each.token_ids)
        np.testing.assert_array_equal(joined.positions[user, :new], each.positions[start:])
        np.testing.assert_array_equal(joined.visible[user, :new], each.visible)
        np.testing.assert_array_equal(joined.seen[user, :new, : each.shape.seen], each.seen)
        padding = start + np.arange(sizes.new)[:, None]  # padding sees itself
        assert (joined.seen[user, new:] == padding[new:]).all()
        assert (joined.seen[user, :, each.shape.seen :] == padding).all()
        rows, pairs = each.wanted, each.pair_rows
        wanted = joined.wanted[row : row + len(rows)]
        np.testing.assert_array_equal(wanted, user * sizes.new + rows)
        np.testing.assert_array_equal(joined.pair_rows[pair : pair + len(pairs)], row + pairs)
        asked = joined.pair_tokens[pair : pair + len(pairs)]
        np.testing.assert_array_equal(asked, each.pair_tokens)
        row, pair = row + len(rows), pair + len(pairs)
