from __future__ import annotations

import torch

from adprior_runtime.engines.architecture import Architecture, Rotation
from adprior_runtime.engines.torch_cache import LEAST_ROOM, DeviceCache

OF = Architecture(
    vocabulary=50, hidden=32, intermediate=64, layers=2, heads=4, key_value_heads=2, head_size=4,
    max_positions=64, norm_epsilon=1e-6, norm_offset=0.0, activation="silu", tied=True,
    embedding_scale=1.0, sandwich=False, attention_scale=0.5, attention_cap=None, final_cap=None,
    rotations=(Rotation((1.0, 0.01)),) * 2, windows=(None, None),
)  # fmt: skip


def _add(cache: DeviceCache, values: list[float], *, keep: bool = True) -> torch.Tensor:
    """Write a key and a value for each number into every layer; return the last layer's values."""
    cache.make_room(len(values))
    new = torch.tensor(values)[None, None, :, None].expand(1, 2, -1, 4)
    for layer in range(OF.layers):
        keys, found = cache.write(layer, new + 100, new)
        assert torch.equal(keys, found + 100)
    if keep:
        cache.keep(len(values))
    return found[0, 0, :, 0]


def test_positions_stay_when_the_cache_grows() -> None:
    cache = DeviceCache(OF, torch.device("cpu"))
    first = [float(number) for number in range(LEAST_ROOM)]
    assert _add(cache, first).tolist() == first
    assert cache.room == LEAST_ROOM
    assert _add(cache, [-1.0]).tolist() == [*first, -1.0]
    assert (cache.room, cache.length) == (2 * LEAST_ROOM, LEAST_ROOM + 1)


def test_what_is_not_kept_is_overwritten() -> None:
    cache = DeviceCache(OF, torch.device("cpu"))
    _add(cache, [1.0])
    assert _add(cache, [2.0, 3.0], keep=False).tolist() == [1.0, 2.0, 3.0]
    assert _add(cache, [4.0]).tolist() == [1.0, 4.0]


def test_copies_grow_independently() -> None:
    head = DeviceCache(OF, torch.device("cpu"))
    _add(head, [1.0, 2.0])
    copies = [head.fork() for _ in range(2)]
    assert _add(copies[0], [3.0]).tolist() == [1.0, 2.0, 3.0]
    assert _add(copies[1], [4.0, 5.0]).tolist() == [1.0, 2.0, 4.0, 5.0]
    assert _add(head, [6.0]).tolist() == [1.0, 2.0, 6.0]
    assert _add(copies[0], [7.0]).tolist() == [1.0, 2.0, 3.0, 7.0]
