"""A server's counters: requests, time in each step of each model, CPU seconds of each process.

Times are Triton's statistics. CPU seconds are those of tritonserver and of one stub process for
each instance of a Python model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil

from adprior_runtime.contract import MODEL_NAMES
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.model_counters import ModelCounters
from adprior_runtime.server.processes import model_run_by

FRONT_END: Final = "tritonserver"
"""The process that receives requests; the other processes are named for their model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Counters of a server, since its start or between two readings.

    Attributes:
        models: Counters by model.
        cpu_s: CPU seconds by process (`FRONT_END` or a model); None where they cannot be read.
    """

    models: Mapping[str, ModelCounters]
    cpu_s: Mapping[str, float] | None

    @classmethod
    def of(cls, statistics: Any, process: psutil.Process | None) -> Counters:
        """Return the counters in Triton's statistics, and those of the server's process."""
        models = {name: ModelCounters() for name in MODEL_NAMES}
        models |= {item.name: ModelCounters.of(item) for item in statistics.model_stats}
        return cls(models=models, cpu_s=None if process is None else _read_cpu_s(process))

    def since(self, earlier: Counters) -> Counters:
        """Return the difference.

        Raises:
            EnvironmentProblemError: The server's processes are others.
        """
        models = {name: now.since(earlier.models[name]) for name, now in self.models.items()}
        if self.cpu_s is None or earlier.cpu_s is None:
            return Counters(models=models, cpu_s=None)
        if self.cpu_s.keys() != earlier.cpu_s.keys():
            raise EnvironmentProblemError("the server's processes changed while it was measured")
        cpu_s = {name: now - earlier.cpu_s[name] for name, now in self.cpu_s.items()}
        return Counters(models=models, cpu_s=cpu_s)

    def cpu_s_per_request(self, model: str) -> dict[str, float] | None:
        """Return the CPU seconds of each process for one request that a model answered."""
        requests = self.models[model].requests
        if self.cpu_s is None or not requests:
            return None
        return {name: value / requests for name, value in self.cpu_s.items()}


def _read_cpu_s(root: psutil.Process) -> dict[str, float]:
    """Return CPU seconds of a process and its descendants, by model or `FRONT_END`."""
    cpu_s: dict[str, float] = {}
    try:
        for process in [root, *root.children(recursive=True)]:
            times, name = process.cpu_times(), model_run_by(process.cmdline()) or FRONT_END
            cpu_s[name] = cpu_s.get(name, 0.0) + times.user + times.system
    except psutil.Error as error:
        raise EnvironmentProblemError(f"a process of the server is gone: {error}") from error
    return cpu_s
