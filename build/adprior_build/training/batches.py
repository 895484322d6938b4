"""Examples in batches of like length, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from adprior_build.training.examples import Example

_WINDOW_BATCHES = 64
"""Lengths are evened out among so many batches: an epoch's order stays as good as random."""


class EpochSource(Protocol):
    """Where the loop's examples come from."""

    def epoch(self, number: int) -> list[Example]:
        """Return the examples of epoch ``number``; always the same for the same number."""
        ...


class RememberedEpochs:
    """A source that need not draw the epoch it drew last again."""

    def __init__(self, source: EpochSource) -> None:
        self._source = source
        self._last: tuple[int, list[Example]] = (-1, [])

    def epoch(self, number: int) -> list[Example]:
        """Return the examples of epoch ``number``."""
        if self._last[0] != number:
            self._last = (number, self._source.epoch(number))
        return self._last[1]


def cut_into_batches(
    examples: Sequence[Example], size: int, seed: Sequence[int] | None = None
) -> list[list[Example]]:
    """Cut examples into batches of like length.

    Args:
        examples: In drawn order, which decides among equal lengths.
        size: Examples in a batch; the last of all may have fewer.
        seed: Of the batches' order; None leaves the short ones of each window first.
    """
    window = size * _WINDOW_BATCHES
    batches: list[list[Example]] = []
    for start in range(0, len(examples), window):
        part = sorted(examples[start : start + window], key=lambda item: len(item.token_ids))
        batches.extend(part[first : first + size] for first in range(0, len(part), size))
    if seed is None:
        return batches
    return [batches[index] for index in np.random.default_rng(seed).permutation(len(batches))]
