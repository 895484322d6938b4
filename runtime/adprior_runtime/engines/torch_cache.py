"""The KV cache of `adprior_runtime.engines.torch_engine`: one block of the device's memory.

A user has a slot of the block. All slots have room for as many positions as the longest user needs.
So a pass for many users reads and writes one block. When slots or room do not suffice, a larger
block takes its place, with twice the slots, or room for the next power of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Self

import torch

from adprior_runtime.engines.architecture import Architecture

LEAST_ROOM: Final = 64
"""Positions that a slot has room for at first, unless the block is told otherwise."""


class CacheBlock:
    """All users' keys and values.

    Args:
        of: The model's architecture.
        device: Where the block is.
        slots: Users that it has room for at first.
        room: Positions of each that it has room for at first.
        moved: Called when the memory has been exchanged for a larger one.
    """

    def __init__(
        self,
        of: Architecture,
        device: torch.device,
        *,
        slots: int = 0,
        room: int = LEAST_ROOM,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._moved = moved
        # Layers, keys and values, slots, heads, positions, head size. Always finite: hidden
        # positions are multiplied by 0.
        self._stored = torch.zeros(
            (of.layers, 2, slots, of.key_value_heads, room, of.head_size), device=device
        )
        self._positions = torch.zeros((slots, room), dtype=torch.int64, device=device)
        self._free: list[int] = [*range(slots - 1, -1, -1)]

    @property
    def slots(self) -> int:
        """Users that the memory is for."""
        return self._stored.shape[2]

    @property
    def room(self) -> int:
        """Positions of a user that the memory is for."""
        return self._stored.shape[4]

    def take(self) -> int:
        """Return a slot that nobody uses."""
        if not self._free:
            before = self.slots
            self._resize(max(1, 2 * before), self.room)
            self._free = [*range(self.slots - 1, before - 1, -1)]
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Take a slot back, without its numbers: they may not be finite."""
        self._stored[:, :, slot] = 0
        self._free.append(slot)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first positions of one slot to another."""
        self._stored[:, :, target, :, :length] = self._stored[:, :, source, :, :length]
        self._positions[target, :length] = self._positions[source, :length]

    def make_room(self, positions: int) -> None:
        """Provide memory for users of ``positions``."""
        if positions > self.room:
            self._resize(self.slots, 1 << (positions - 1).bit_length())

    def write(
        self, layer: int, slots: torch.Tensor, places: torch.Tensor, pair: Sequence[torch.Tensor]
    ) -> None:
        """Write one layer's new keys and values, each [users, heads, new, head size].

        Args:
            layer: The layer's number.
            slots: int64 [users, 1].
            places: int64 [users, new], positions in the slots.
            pair: The keys and the values.
        """
        for stored, new in zip(self._stored[layer], pair, strict=True):
            stored[slots, :, places] = new.transpose(1, 2)

    def write_positions(
        self, slots: torch.Tensor, places: torch.Tensor, positions: torch.Tensor
    ) -> None:
        """Write the position ids of new tokens, int64 [users, new]; see `write`."""
        self._positions[slots, places] = positions

    def layer(
        self, number: int, slots: slice | torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one layer's keys and values: [users, heads, length, head size] each."""
        keys, values = self._stored[number, :, :, :, :length]
        return keys[slots], values[slots]

    def positions(self, slots: slice | torch.Tensor, length: int) -> torch.Tensor:
        """Return position ids: int64 [users, length]."""
        return self._positions[:, :length][slots]

    @torch.inference_mode(mode=False)  # else it could be written in that mode only
    def _resize(self, slots: int, room: int) -> None:
        """Copy everything into a larger block."""
        sizes = list(self._stored.shape)
        before, sizes[2], sizes[4] = self._stored, slots, room
        stored, positions = before.new_zeros(sizes), self._positions.new_zeros((slots, room))
        stored[:, :, : before.shape[2], :, : before.shape[4]] = before
        positions[: before.shape[2], : before.shape[4]] = self._positions
        self._stored, self._positions = stored, positions
        self._moved()


class DeviceCache:
    """One user's keys and values: a slot of the block, given back when nothing refers to it.

    A pass writes behind the kept positions. Keeping them only moves their end, so a pass that is
    not kept leaves nothing behind.

    Args:
        block: The block.

    Attributes:
        slot: The slot's number.
        length: The number of positions that are kept.
    """

    def __init__(self, block: CacheBlock) -> None:
        self._block, self.length = block, 0
        self.slot = block.take()

    def __del__(self) -> None:
        if hasattr(self, "slot"):  # taking it may have failed
            self._block.give_back(self.slot)

    def fork(self) -> Self:
        """Return a copy that grows independently."""
        other = type(self)(self._block)
        other.length = self.length
        self._block.copy(self.slot, other.slot, self.length)
        return other

    def keep(self, new: int) -> None:
        """Keep the ``new`` positions that were written last."""
        self.length += new


class PassCache:
    """The slots of a pass's users.

    Args:
        block: The block, with room for ``longest``.
        slots: int64 [users].
        starts: int64 [users], positions that each has before the pass.
        positions: int64 [users, new], the position ids of the pass's tokens.
        longest: Positions to read of each user, new ones included.
        neighbours: The users' slots, if they are neighbours in this order: they are read where they
            are. Others are copied.

    Attributes:
        key_positions: int64 [users, longest], position ids of what the new tokens may see. What is
            behind a user's own positions has no meaning.
    """

    def __init__(
        self,
        block: CacheBlock,
        slots: torch.Tensor,
        starts: torch.Tensor,
        positions: torch.Tensor,
        longest: int,
        neighbours: slice | None = None,
    ) -> None:
        self._block, self._longest = block, longest
        self._slots = slots[:, None]
        steps = torch.arange(positions.shape[1], device=positions.device)
        self._places = starts[:, None] + steps
        self._read = slots if neighbours is None else neighbours
        block.write_positions(self._slots, self._places, positions)
        self.key_positions = block.positions(self._read, longest)

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new keys and values behind the kept ones; return all of them.

        Args:
            layer: The layer's number.
            keys: float32 [users, key_value_heads, new, head_size].
            values: Likewise.

        Returns:
            Keys and values: [users, key_value_heads, longest, head_size].
        """
        self._block.write(layer, self._slots, self._places, (keys, values))
        return self._block.layer(layer, self._read, self._longest)


def neighbours(slots: Sequence[int]) -> slice | None:
    """Return slots as a slice, None if they are not neighbours in rising order."""
    run = range(slots[0], slots[0] + len(slots))
    return slice(run.start, run.stop) if [*run] == [*slots] else None
