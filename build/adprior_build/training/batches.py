"""Batches of examples of similar length, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from adprior_build.training.examples import Example

_WINDOW_BATCHES: Final = 64
"""Examples are sorted by length within a window of this many batches: the order stays random."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Sequences padded on the right, which causal attention never sees from earlier positions.

    Attributes:
        ids: int64 [sequences, longest].
        rows: int64 [targets], the sequence of each target.
        columns: int64 [targets], its position in the sequence.
        starts: bool [targets], whether it is the first token of a name.
        tokens: Number of tokens without padding.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    starts: torch.Tensor
    tokens: int

    @classmethod
    def of(
        cls, examples: Sequence[Example], *, terminator: int | None = None, device: str = "cpu"
    ) -> Batch:
        """Gather examples; ``terminator`` is the token that ends a name."""
        longest = max(len(example.token_ids) for example in examples)
        ids = torch.zeros((len(examples), longest), dtype=torch.long)
        for row, example in enumerate(examples):
            ids[row, : len(example.token_ids)] = torch.tensor(example.token_ids)
        starts = [set(start_positions(example, terminator)) for example in examples]
        places = [(r, p) for r, example in enumerate(examples) for p in example.target_positions]
        tensors = [
            ids,
            torch.tensor([row for row, _ in places]),
            torch.tensor([position for _, position in places]),
            torch.tensor([position in starts[row] for row, position in places]),
        ]
        if device != "cpu":  # pinned memory is copied while the device computes
            tensors = [item.pin_memory().to(device, non_blocking=True) for item in tensors]
        return cls(
            ids=tensors[0],
            rows=tensors[1],
            columns=tensors[2],
            starts=tensors[3],
            tokens=sum(len(example.token_ids) for example in examples),
        )

    @property
    def targets(self) -> int:
        """Number of tokens that the loss is computed on."""
        return len(self.rows)


def start_positions(example: Example, terminator: int | None) -> list[int]:
    """Return the target positions where a name begins.

    Such a position follows no other target, or follows a name's ``terminator``.
    """
    targets = set(example.target_positions)
    return [
        position
        for position in example.target_positions
        if position - 1 not in targets or example.token_ids[position - 1] == terminator
    ]


def cut_into_batches(
    examples: Sequence[Example], size: int, seed: Sequence[int] | None = None
) -> list[list[Example]]:
    """Cut examples into batches of similar length.

    Args:
        examples: In drawn order, which decides between equal lengths.
        size: Examples per batch; the last batch may have fewer.
        seed: Seed of the batches' order; None keeps each window in order, short batches first.
    """
    window = size * _WINDOW_BATCHES
    batches: list[list[Example]] = []
    for start in range(0, len(examples), window):
        part = sorted(examples[start : start + window], key=lambda item: len(item.token_ids))
        batches.extend(part[first : first + size] for first in range(0, len(part), size))
    if seed is None:
        return batches
    return [batches[index] for index in np.random.default_rng(seed).permutation(len(batches))]
