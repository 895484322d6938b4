"""From measured throughput to 20 million users a day, with every assumption named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine one can rent.

    Attributes:
        name: The provider's name of it.
        cores: Virtual cores.
        memory_gb: Memory.
        price_per_hour: US dollars.
    """

    name: str
    cores: int
    memory_gb: int
    price_per_hour: float


MACHINES: Final = (
    Machine(name="c7i.4xlarge", cores=16, memory_gb=32, price_per_hour=0.714),
    Machine(name="c7i.16xlarge", cores=64, memory_gb=128, price_per_hour=2.856),
    Machine(name="c7i.48xlarge", cores=192, memory_gb=384, price_per_hour=8.568),
)

SCALE_OUT: Final = 0.9
"""Of a worker's throughput, what is left of it in a cluster."""
SYSTEM_CORES: Final = 1
"""Of each machine, for Ray and the system."""
MEMORY_HEADROOM: Final = 0.7
"""Of each machine's memory, what workers may hold."""

ASSUMPTIONS: Final = (
    "a rented virtual core does what one of the cores measured on does (measure there first)",
    "prices are list prices on demand in US dollars, of memory and unchecked: put in your own; "
    "spot machines cost a half or less, and a killed worker loses less than a shard",
    f"in a cluster a worker keeps {SCALE_OUT:.0%} of its throughput; shared storage keeps up",
    f"{SYSTEM_CORES} core of each machine is for Ray and the system, and workers hold at most "
    f"{MEMORY_HEADROOM:.0%} of its memory",
    "users are like those measured, all of them due: contexts of the same length, this bundle",
    "machines are paid for whole, from start to end; their start, the split by user and the "
    "copying of inputs come on top",
    "no GPU: none has been measured",
)


def size_cluster(
    *, users: float, users_per_s: float, rss_mb: float, hours: float, machine: Machine
) -> dict[str, Any]:
    """Return how many machines forecast so many users in time, and what they cost.

    Args:
        users: Forecasts a day.
        users_per_s: Of one worker on one core.
        rss_mb: Of one worker.
        hours: In which the day's run is to be over.
        machine: Which.
    """
    by_memory = math.floor(MEMORY_HEADROOM * machine.memory_gb * 1024 / max(rss_mb, 1.0))
    workers = max(1, min(machine.cores - SYSTEM_CORES, by_memory))
    rate = SCALE_OUT * users_per_s * workers
    machines = math.ceil(users / (rate * hours * 3600))
    took_h = users / (rate * machines * 3600)
    cost = machines * took_h * machine.price_per_hour
    return {
        "machine": machine.name,
        "cores": machine.cores,
        "workers_per_machine": workers,
        "machines": machines,
        "hours": took_h,
        "cost_per_day": cost,
        "cost_per_million_users": cost / users * 1e6,
    }
