from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adprior_bench.rolling.gentle_start import lift, on_idle_processors

PROGRAM = """
import subprocess, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "input()"])
print("begun", flush=True)
child.wait()
"""


@pytest.fixture
def idle_parent() -> Iterator[subprocess.Popen[str]]:
    """A process with two threads and a child, all in the class for idle work."""
    with on_idle_processors():
        assert os.sched_getscheduler(0) == os.SCHED_IDLE
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "begun\n"
        yield process
        process.communicate("\n")


def _classes(process: subprocess.Popen[str]) -> list[int]:
    """Return the class of each thread of a process and of its child."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    tasks = [
        int(task.name)
        for pid in (process.pid, *children)
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    assert len(tasks) >= 3
    return [os.sched_getscheduler(task) for task in tasks]


def test_a_server_starts_in_the_class_for_idle_work_and_is_lifted(
    idle_parent: subprocess.Popen[str],
) -> None:
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert set(_classes(idle_parent)) == {os.SCHED_IDLE}
    lift(idle_parent.pid)
    assert set(_classes(idle_parent)) == {os.SCHED_OTHER}
