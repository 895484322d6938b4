from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adprior_bench.rolling.gentle_start import lift, on_idle_processors, require_right
from adprior_runtime.cli import main
from adprior_runtime.errors import EnvironmentProblemError
from support.processes import run

PROGRAM = """
import subprocess, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "input()"])
print("begun", flush=True)
child.wait()
"""


WITHOUT_THE_RIGHT = """
import os, psutil
from adprior_bench.rolling.gentle_start import on_idle_processors
from adprior_runtime.errors import EnvironmentProblemError
psutil.Process().rlimit(psutil.RLIMIT_NICE, (0, 0))
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    with on_idle_processors():
        print("entered")
except EnvironmentProblemError as error:
    print(error)
print(os.sched_getscheduler(0) == os.SCHED_OTHER)
"""


def _has_right() -> bool:
    try:
        require_right()
    except EnvironmentProblemError:
        return False
    return True


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


@pytest.mark.skipif(not _has_right(), reason="needs CAP_SYS_NICE or RLIMIT_NICE")
def test_a_server_starts_in_the_class_for_idle_work_and_is_lifted(
    idle_parent: subprocess.Popen[str],
) -> None:
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert set(_classes(idle_parent)) == {os.SCHED_IDLE}
    lift(idle_parent.pid)
    assert set(_classes(idle_parent)) == {os.SCHED_OTHER}


def test_without_the_right_nothing_becomes_idle() -> None:
    done = run(sys.executable, "-c", WITHOUT_THE_RIGHT)
    assert (done.returncode, done.stderr) == (0, "")
    refusal, is_usual = done.stdout.splitlines()
    assert refusal.startswith("--gentle-start: found no right to leave the scheduling class for")
    assert "(`ulimit -e`: 0), expected CAP_SYS_NICE (root) or `ulimit -e`: " in refusal
    assert is_usual == "True"


def test_the_command_refuses_before_it_starts_a_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(thread: int, policy: int, param: os.sched_param) -> None:
        if policy != os.SCHED_IDLE:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    repositories = ["--old", "nowhere", "--new", "nowhere"]
    assert main(["bench", "rolling", *repositories, "--gentle-start"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--gentle-start: found no right" in line
