"""Counts the processors that this process may use, from its affinity and its cgroup quotas.

They may be fewer than the machine's cores: a container has some of the cores (``cpuset``) or a
share of their time (``docker --cpus``, a Kubernetes limit). There, a pool with one thread for each
core of the machine has more threads than can run at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def available_processors(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return how many threads can run at once, at least 1; a quota of 2.5 processors allows 2.

    Args:
        groups: Mount point of the control groups, version 1 or 2.
        membership: The file that lists this process's groups.
    """
    allowed = float(len(os.sched_getaffinity(0)))
    return max(1, int(min([allowed, *_quotas(groups, membership)])))


def threads_of_each(pools: int, threads: int = 0) -> int:
    """Return the number of threads of each pool, if several pools work at the same time.

    Args:
        pools: Number of pools.
        threads: Number of threads, if set; 0 shares the available processors among the pools.
    """
    return threads or max(1, available_processors() // max(1, pools))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas, in processors, of the process's groups and of their ancestors."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _up(groups, path, _quota_2)
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                yield from _up(groups / name, path, _quota_1)


def _up(mount: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Yield the quotas of a group and its ancestors.

    In a container the path may be the host's path, while the mount shows only its last part, or
    nothing. So missing directories are skipped.
    """
    group = mount / path.lstrip("/")
    for directory in (group, *group.parents):
        if directory == mount.parent:
            return
        if (quota := read(directory)) is not None:
            yield quota


def _quota_2(directory: Path) -> float | None:
    match _words(directory / "cpu.max"):
        case [quota, period] if quota.isdecimal() and period.isdecimal():
            return int(quota) / max(1, int(period))
    return None


def _quota_1(directory: Path) -> float | None:
    match _words(directory / "cpu.cfs_quota_us"), _words(directory / "cpu.cfs_period_us"):
        case [quota], [period] if quota.isdecimal() and period.isdecimal():  # -1: no limit
            return int(quota) / max(1, int(period))
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
