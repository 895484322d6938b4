"""A stand-in for CUDA graphs, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adprior_runtime.engines.torch_graphs import Outputs
from adprior_runtime.engines.torch_passes import TorchPasses


class StandInGraph:
    """Computes again what was recorded, into the same tensors.

    A graph holds addresses, so its replay demands that the cache is still where it was.
    """

    def __init__(
        self, compute: Callable[[], Outputs], outputs: Outputs, address: Callable[[], int]
    ) -> None:
        self._compute, self._outputs, self._address = compute, outputs, address
        self._recorded_at, self.replays = address(), 0

    def replay(self) -> None:
        assert self._address() == self._recorded_at
        for output, computed in zip(self._outputs, self._compute(), strict=True):
            output.copy_(computed)
        self.replays += 1


class StandInRecorder:
    """Stands in for `adprior_runtime.engines.torch_graphs.GpuRecorder`.

    Attributes:
        passes: Whose passes are recorded; to be set.
        graphs: What has been recorded.
    """

    passes: TorchPasses

    def __init__(self) -> None:
        self.graphs: list[StandInGraph] = []

    def __call__(self, compute: Callable[[], Outputs]) -> tuple[StandInGraph, Outputs]:
        outputs = tuple(torch.full_like(each, torch.nan) for each in compute())
        self.graphs.append(StandInGraph(compute, outputs, self.passes._block._stored.data_ptr))
        return self.graphs[-1], outputs
