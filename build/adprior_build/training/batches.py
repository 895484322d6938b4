"""Batches of windows of similar length, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from adprior_build.training.windows import Window

_SORTED_BATCHES: Final = 64
"""Windows are sorted by length among those of this many batches: the order stays random."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Sequences padded on the right, which causal attention never sees from earlier positions.

    Attributes:
        ids: int64 [sequences, longest].
        rows: int64 [target tokens], the sequence of each.
        columns: int64 [target tokens], its position in the sequence.
        kinds: int8 [target tokens], as in `Window`.
        names: Number of advertisers' names that are targets.
        new_names: Number of these that are new to the user.
        interests: Number of interests that are targets.
        tokens: Number of tokens without padding.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    kinds: torch.Tensor
    names: int
    new_names: int
    interests: int
    tokens: int

    @classmethod
    def of(cls, windows: Sequence[Window], *, device: str = "cpu") -> Batch:
        """Gather windows."""
        ids = np.zeros((len(windows), max(len(item.token_ids) for item in windows)), np.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window.token_ids)] = window.token_ids
        counts = [len(window.targets) for window in windows]
        tensors = [
            torch.from_numpy(values)
            for values in (
                ids,
                np.repeat(np.arange(len(windows)), counts),
                np.concatenate([window.targets for window in windows]).astype(np.int64),
                np.concatenate([window.kinds for window in windows]),
            )
        ]
        if device != "cpu":  # pinned memory is copied while the device computes
            tensors = [item.pin_memory().to(device, non_blocking=True) for item in tensors]
        return cls(
            ids=tensors[0],
            rows=tensors[1],
            columns=tensors[2],
            kinds=tensors[3],
            names=sum(window.names for window in windows),
            new_names=sum(window.new_names for window in windows),
            interests=sum(window.interests for window in windows),
            tokens=sum(len(window.token_ids) for window in windows),
        )

    @property
    def targets(self) -> int:
        """Number of tokens that the loss is computed on."""
        return len(self.rows)


def cut_into_batches(
    windows: Sequence[Window], size: int, seed: Sequence[int] | None = None
) -> list[list[Window]]:
    """Cut windows into batches of similar length.

    Args:
        windows: In drawn order, which decides between equal lengths.
        size: Windows per batch; the last batch may have fewer.
        seed: Seed of the batches' order; None keeps the order, short batches first.
    """
    part_size = size * _SORTED_BATCHES
    batches: list[list[Window]] = []
    for start in range(0, len(windows), part_size):
        part = sorted(windows[start : start + part_size], key=lambda item: len(item.token_ids))
        batches.extend(part[first : first + size] for first in range(0, len(part), size))
    if seed is None:
        return batches
    return [batches[index] for index in np.random.default_rng(seed).permutation(len(batches))]
