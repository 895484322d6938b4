"""The KV cache of `adprior_runtime.engines.torch_engine`, in the device's memory."""

from __future__ import annotations

from typing import Final, Self

import torch

from adprior_runtime.engines.architecture import Architecture

LEAST_ROOM: Final = 64
"""Positions that a cache has room for at first. Its room grows by powers of two."""


class DeviceCache:
    """One user's keys and values.

    A pass writes into the room behind the kept positions. Keeping it only moves their end, so a
    pass that is not kept leaves nothing behind.

    Args:
        of: The model's architecture.
        device: Where the cache is.

    Attributes:
        length: The number of positions that are kept.
    """

    def __init__(self, of: Architecture, device: torch.device) -> None:
        self.length = 0
        self._stored = torch.empty(
            (of.layers, 2, 1, of.key_value_heads, 0, of.head_size),
            dtype=torch.float32,
            device=device,
        )  # layers, keys and values, users, heads, positions, head size
        self._is_shared = False

    @property
    def room(self) -> int:
        """Positions that the memory is for."""
        return self._stored.shape[4]

    def fork(self) -> Self:
        """Return a copy that grows independently; the memory is shared until one of them grows."""
        other = object.__new__(type(self))
        other.length, other._stored = self.length, self._stored
        self._is_shared = other._is_shared = True
        return other

    def make_room(self, new: int) -> None:
        """Provide memory for ``new`` further positions."""
        needed = self.length + new
        if needed <= self.room and not self._is_shared:
            return
        room = max(LEAST_ROOM, 1 << (needed - 1).bit_length())
        sizes = list(self._stored.shape)
        sizes[4] = room
        grown = self._stored.new_empty(sizes)
        grown[..., : self.length, :] = self._stored[..., : self.length, :]
        self._stored, self._is_shared = grown, False

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new keys and values behind the kept ones; return all of them.

        Args:
            layer: The layer's number.
            keys: float32 [users, key_value_heads, new, head_size]; there is one user.
            values: Likewise.

        Returns:
            Views of keys and values: [users, key_value_heads, length + new, head_size].
        """
        end = self.length + keys.shape[2]
        stored = self._stored[layer]
        stored[0, :, :, self.length : end] = keys
        stored[1, :, :, self.length : end] = values
        return stored[0, :, :, :end], stored[1, :, :, :end]

    def keep(self, new: int) -> None:
        """Keep the ``new`` positions that were written last."""
        self.length += new
