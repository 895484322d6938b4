from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from adprior_runtime import cpu_count
from adprior_runtime.cpu_count import available_processors, threads_of_each
from support.processes import run

CORES = 64


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))


def found(groups: Path, member: str, **files: str) -> int:
    """Return the processors found for a process in group ``member`` with these group files."""
    for name, text in files.items():
        path = groups / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    membership = groups / "membership"
    membership.write_text(member)
    return available_processors(groups, membership)


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [
        ("100000 100000", 1),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("400000 50000", 8),
        ("max 100000", CORES),
        ("9900000 100000", CORES),
        ("", CORES),
        ("nonsense", CORES),
        ("100000 0", CORES),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, quota: str, allowed: int) -> None:
    assert found(tmp_path, "0::/\n", cpu_max=quota) == allowed


def test_the_smallest_quota_of_all_ancestors_counts(tmp_path: Path) -> None:
    quotas = {
        "cpu_max": "max 100000",
        "pods__cpu_max": "300000 100000",
        "pods__mine__cpu_max": "800000 100000",
        "pods__other__cpu_max": "100000 100000",
    }
    assert found(tmp_path, "0::/pods/mine\n", **quotas) == 3


def test_a_host_path_falls_back_to_the_containers_quota(tmp_path: Path) -> None:
    assert found(tmp_path, "0::/host/pods/7\n", cpu_max="200000 100000") == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "allowed"), [("150000", 1), ("400000", 4), ("-1", CORES)])
def test_a_version_1_quota_counts(tmp_path: Path, mount: str, quota: str, allowed: int) -> None:
    group = tmp_path / mount / "docker" / "a1"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    member = "12:cpuset:/\n4:cpu,cpuacct:/docker/a1\n0::/docker/a1\n"
    assert found(tmp_path, member) == allowed


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_processors(tmp_path, tmp_path / "nowhere") == CORES


def test_the_affinity_of_a_process_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from adprior_runtime.cpu_count import available_processors;"
        "print(available_processors())"
    )
    result = run(sys.executable, "-c", code)
    assert result.stdout == "1\n", result.stderr


@pytest.mark.parametrize(
    ("pools", "threads", "each"), [(1, 0, 6), (2, 0, 3), (4, 0, 1), (9, 0, 1), (2, 5, 5)]
)
def test_pools_share_the_processors_unless_threads_are_set(
    monkeypatch: pytest.MonkeyPatch, pools: int, threads: int, each: int
) -> None:
    monkeypatch.setattr(cpu_count, "available_processors", lambda: 6)
    assert threads_of_each(pools, threads) == each
