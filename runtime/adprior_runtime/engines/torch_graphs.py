"""CUDA graphs: passes of sizes that come again are replayed, without work for each kernel.

A pass of new sizes runs as it is. When its sizes have come `_USES_BEFORE` times, the kernels are
recorded. A recording holds the addresses of the cache's block, so it is dropped when the block
moves; and when `_MOST_RECORDINGS` others have been used since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import torch

Sizes = TypeVar("Sizes")
"""What says which kernels a pass runs, and on how many numbers; hashable."""

Outputs = tuple[torch.Tensor, ...]
Compute = Callable[[Sizes, torch.Tensor], Outputs]
"""Computes log-probabilities from the sizes of a pass and its numbers on the device."""

_USES_BEFORE: Final = 2
_MOST_RECORDINGS: Final = 128


class Recording(Protocol):
    """The part of ``torch.cuda.CUDAGraph`` that is used here."""

    def replay(self) -> None:
        """Run the kernels again."""


Record = Callable[[Callable[[], Outputs]], tuple[Recording, Outputs]]
"""Records what a function does; returns the recording and the tensors that it fills."""


class GpuRecorder:
    """Records kernels as CUDA graphs, which share their working memory.

    That is safe because one graph runs at a time, and its output is read before the next one.
    """

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], Outputs]) -> tuple[Recording, Outputs]:
        """See `Record`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            outputs = compute()
        return graph, outputs


class _Recorded(NamedTuple):
    recording: Recording
    given: torch.Tensor
    outputs: Outputs


class ReplayedPasses(Generic[Sizes]):
    """Computes passes, from a recording if there is one.

    Args:
        compute: Computes a pass without waiting for the device.
        make_record: Makes what records it.
    """

    def __init__(self, compute: Compute[Sizes], make_record: Callable[[], Record]) -> None:
        self._compute, self._make_record = compute, make_record
        self._record = make_record()
        self._uses: Counter[Sizes] = Counter()
        self._recorded: dict[Sizes, _Recorded] = {}

    def run(self, sizes: Sizes, given: torch.Tensor) -> Outputs:
        """Compute a pass; the answer is valid until the next call."""
        if sizes not in self._recorded:
            self._uses[sizes] += 1
            if self._uses[sizes] <= _USES_BEFORE:
                return self._compute(sizes, given)
            if len(self._recorded) == _MOST_RECORDINGS:
                longest_unused = next(iter(self._recorded))
                del self._recorded[longest_unused], self._uses[longest_unused]
            kept = given.clone()
            recording, outputs = self._record(lambda: self._compute(sizes, kept))
            self._recorded[sizes] = _Recorded(recording, kept, outputs)
        found = self._recorded[sizes] = self._recorded.pop(sizes)  # now the last one used
        found.given.copy_(given)
        found.recording.replay()
        return found.outputs

    def forget(self) -> None:
        """Drop all recordings and their working memory: what they point to has moved."""
        self._recorded.clear()
        self._record = self._make_record()
