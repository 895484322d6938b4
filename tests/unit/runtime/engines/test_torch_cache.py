from __future__ import annotations

import gc

import pytest
import torch

from adprior_runtime.engines.architecture import Architecture, Rotation
from adprior_runtime.engines.torch_cache import (
    LEAST_ROOM,
    CacheBlock,
    DeviceCache,
    PassCache,
    neighbours,
)

OF = Architecture(
    vocabulary=50, hidden=32, intermediate=64, layers=2, heads=4, key_value_heads=2, head_size=4,
    max_positions=64, norm_epsilon=1e-6, norm_offset=0.0, activation="silu", tied=True,
    embedding_scale=1.0, sandwich=False, attention_scale=0.5, attention_cap=None, final_cap=None,
    rotations=(Rotation((1.0, 0.01)),) * 2, windows=(None, None),
)  # fmt: skip


def _block() -> CacheBlock:
    return CacheBlock(OF, torch.device("cpu"))


def _add_together(
    block: CacheBlock, caches: list[DeviceCache], values: list[list[float]], *, keep: bool = True
) -> list[list[float]]:
    """Write a key, a value and a position for each number; return each user's values, in order.

    All layers, keys and positions are checked. Users with fewer numbers than others get padding.
    """
    new = max(map(len, values))
    padded = torch.tensor([each + [99.0] * (new - len(each)) for each in values])
    slots, starts = ([each.slot for each in caches], [each.length for each in caches])
    longest = max(starts) + new
    block.make_room(longest)
    joined = PassCache(
        block, torch.tensor(slots), torch.tensor(starts), padded.long(), longest, neighbours(slots)
    )
    tensor = padded[:, None, :, None].expand(-1, 2, -1, 4)
    for layer in range(OF.layers):
        keys, found = joined.write(layer, tensor + 100, tensor)
    lengths = [cache.length + len(each) for cache, each in zip(caches, values, strict=True)]
    for user, length in enumerate(lengths):
        assert torch.equal(keys[user, :, :length], found[user, :, :length] + 100)
        own = joined.key_positions[user, :length]
        assert torch.equal(own.float(), found[user, 0, :length, 0])
    if keep:
        for cache, each in zip(caches, values, strict=True):
            cache.keep(len(each))
    return [found[user, 1, :length, 3].tolist() for user, length in enumerate(lengths)]


def _add(
    block: CacheBlock, cache: DeviceCache, values: list[float], *, keep: bool = True
) -> list[float]:
    return _add_together(block, [cache], [values], keep=keep)[0]


def test_positions_stay_when_the_room_grows() -> None:
    block = _block()
    cache = DeviceCache(block)
    first = [float(number) for number in range(LEAST_ROOM)]
    assert _add(block, cache, first) == first
    assert block.room == LEAST_ROOM
    assert _add(block, cache, [7.0]) == [*first, 7.0]
    assert (block.room, cache.length) == (2 * LEAST_ROOM, LEAST_ROOM + 1)


def test_what_is_not_kept_is_overwritten() -> None:
    block = _block()
    cache = DeviceCache(block)
    _add(block, cache, [1.0])
    assert _add(block, cache, [2.0, 3.0], keep=False) == [1.0, 2.0, 3.0]
    assert _add(block, cache, [4.0]) == [1.0, 4.0]


def test_copies_grow_independently() -> None:
    block = _block()
    head = DeviceCache(block)
    _add(block, head, [1.0, 2.0])
    copies = [head.fork() for _ in range(2)]
    assert _add(block, copies[0], [3.0]) == [1.0, 2.0, 3.0]
    assert _add(block, copies[1], [4.0, 5.0]) == [1.0, 2.0, 4.0, 5.0]
    assert _add(block, head, [6.0]) == [1.0, 2.0, 6.0]
    assert _add(block, copies[0], [7.0]) == [1.0, 2.0, 3.0, 7.0]


def test_users_of_different_lengths_share_a_pass() -> None:
    block = _block()
    caches = [DeviceCache(block) for _ in range(4)]
    _add_together(block, caches[:3], [[1.0, 2.0, 3.0], [4.0], []])  # neighbours
    found = _add_together(block, [caches[2], caches[0]], [[5.0, 6.0], [7.0]])  # not
    assert found == [[5.0, 6.0], [1.0, 2.0, 3.0, 7.0]]
    found = _add_together(block, [caches[1], caches[3], caches[0]], [[8.0], [9.0], [1.0, 1.0]])
    assert found == [[4.0, 8.0], [9.0], [1.0, 2.0, 3.0, 7.0, 1.0, 1.0]]


def test_a_user_without_finite_numbers_does_not_affect_the_next_one_of_the_slot() -> None:
    block = _block()
    broken = DeviceCache(block)
    slot = broken.slot
    block._stored[:, :, slot] = torch.nan
    del broken
    caches = [DeviceCache(block), DeviceCache(block)]
    assert slot in {cache.slot for cache in caches}
    assert torch.isfinite(block._stored).all()


def test_a_block_may_have_room_from_the_start() -> None:
    block = CacheBlock(OF, torch.device("cpu"), slots=3, room=100, moved=pytest.fail)
    caches = [DeviceCache(block) for _ in range(3)]
    assert sorted(cache.slot for cache in caches) == [0, 1, 2]
    assert _add(block, caches[1], [1.0] * 100) == [1.0] * 100


def test_a_slot_is_used_again_when_nothing_refers_to_it() -> None:
    block = _block()
    caches = [DeviceCache(block) for _ in range(3)]
    assert block.slots == 4
    gone = caches.pop(1).slot
    gc.collect()
    caches += [DeviceCache(block) for _ in range(2)]
    assert gone in {cache.slot for cache in caches}
    assert len({cache.slot for cache in caches}) == block.slots == 4
