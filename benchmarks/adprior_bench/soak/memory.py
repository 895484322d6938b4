"""What a server's processes keep in memory, sampled, and how much it grows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import psutil

from adprior_runtime.server.processes import find_model_processes

SERVER: Final = "tritonserver"
_WINDOW_S: Final = 60.0
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Of one process, or of all: medians of a window after the warm-up and of the last one.

    Attributes:
        first_mib: Resident memory after the warm-up.
        last_mib: At the end.
        peak_mib: The most that was seen, warm-up included.
    """

    process: str
    first_mib: float
    last_mib: float
    peak_mib: float

    @property
    def share(self) -> float:
        """By how much of the first it grew."""
        return self.last_mib / self.first_mib - 1


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Samples: when (seconds from the beginning), and resident bytes by process.

    The instances of a model, each a process, count as one.
    """

    times_s: list[float] = field(default_factory=list)
    resident: dict[str, list[int]] = field(default_factory=dict)

    def growth(self, warm_up_s: float) -> list[Growth]:
        """Return the growth of every process and, last, of all together.

        The windows are a minute long; shorter ones, a third of what is left after the warm-up,
        where that is less than three minutes.
        """
        times = np.array(self.times_s)
        window_s = min(_WINDOW_S, (times[-1] - warm_up_s) / 3)
        first = (times >= warm_up_s) & (times < warm_up_s + window_s)
        last = times >= times[-1] - window_s
        series = {name: np.array(values) for name, values in self.resident.items()}
        series["all"] = np.sum(list(series.values()), axis=0)
        return [
            Growth(
                process=name,
                first_mib=float(np.median(values[first])) / _MIB,
                last_mib=float(np.median(values[last])) / _MIB,
                peak_mib=float(values.max()) / _MIB,
            )
            for name, values in series.items()
        ]


class Sampler:
    """Reads the resident memory of a server and of its Python models.

    Args:
        server_pid: The server's process id; it is ready, so that all its models run.
    """

    def __init__(self, server_pid: int) -> None:
        models = find_model_processes(server_pid)
        self._processes: Mapping[str, Sequence[psutil.Process]] = {
            SERVER: [psutil.Process(server_pid)],
            **{
                name: [psutil.Process(pid) for pid, each in models.items() if each == name]
                for name in sorted(set(models.values()))
            },
        }
        self._began = time.monotonic()
        self.record = MemoryRecord(resident={name: [] for name in self._processes})

    def sample(self) -> bool:
        """Add a sample; False where a process has ended."""
        try:
            found = {
                name: [each.memory_info().rss for each in processes]
                for name, processes in self._processes.items()
            }
        except psutil.NoSuchProcess:
            return False
        if not all(map(all, found.values())):  # a zombie has none
            return False
        self.record.times_s.append(time.monotonic() - self._began)
        for name, resident in found.items():
            self.record.resident[name].append(sum(resident))
        return True
