"""Sizes a cluster for a daily run from measured throughput, and names the assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A rented machine: the provider's name, virtual cores, memory, US dollars an hour."""

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
"""Share of a worker's throughput that remains in a cluster."""

SYSTEM_CORES: Final = 1
"""Cores of each machine for Ray and the system."""

WORKERS_MEMORY: Final = 0.7
"""Share of each machine's memory that workers may hold."""

ASSUMPTIONS: Final = (
    "a rented virtual core is as fast as a core of this machine (measure there first)",
    "prices are list prices on demand in US dollars, from memory and not checked: use your prices; "
    "spot machines cost half or less, and a killed worker loses less than a shard",
    f"in a cluster a worker keeps {SCALE_OUT:.0%} of its throughput; shared storage keeps up",
    f"{SYSTEM_CORES} core of each machine is for Ray and the system, and workers hold at most "
    f"{WORKERS_MEMORY:.0%} of its memory",
    "users have contexts of the measured length, this bundle forecasts, and every user is forecast",
    "machines are paid from start to end; starting them, splitting by user and copying inputs "
    "are extra",
    "no GPU: none was measured",
)


def size_cluster(
    *, users: float, users_per_s: float, rss_mb: float, hours: float, machine: Machine
) -> dict[str, Any]:
    """Return the machines that forecast ``users`` in ``hours``, and their cost.

    ``users_per_s`` and ``rss_mb`` are of one worker on one core.
    """
    by_memory = math.floor(WORKERS_MEMORY * machine.memory_gb * 1024 / max(rss_mb, 1.0))
    workers = max(1, min(machine.cores - SYSTEM_CORES, by_memory))
    rate = SCALE_OUT * users_per_s * workers
    machines = math.ceil(users / (rate * hours * 3600))
    hours_used = users / (rate * machines * 3600)
    cost = machines * hours_used * machine.price_per_hour
    return {
        "machine": machine.name,
        "cores": machine.cores,
        "workers_per_machine": workers,
        "machines": machines,
        "hours": hours_used,
        "cost_per_day": cost,
        "cost_per_million_users": cost / users * 1e6,
    }
