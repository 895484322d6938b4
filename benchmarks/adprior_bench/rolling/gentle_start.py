"""Starts a server on processors that are free at the moment, and lifts its priority afterwards.

Seven processes of a starting server load Python and its libraries at once. On a machine that serves
already, the calls would wait for them. The scheduling class for idle work (``SCHED_IDLE``) takes
next to nothing from others, and Linux lets every user leave it again, unlike a nice value.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

_ROUNDS: Final = 5
"""A thread that starts while the others are lifted has its parent's old class."""


@contextmanager
def on_idle_processors() -> Iterator[None]:
    """Run a block, and the processes that it starts, in the class for idle work."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def lift(pid: int) -> None:
    """Give all threads of a process and of its descendants the usual class."""
    for _ in range(_ROUNDS):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        threads = [
            int(task.name)
            for each in processes
            for task in Path(f"/proc/{each.pid}/task").iterdir()
        ]
        idle = [thread for thread in threads if _is_idle(thread)]
        if not idle:
            return
        for thread in idle:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _is_idle(thread: int) -> bool:
    try:
        return os.sched_getscheduler(thread) == os.SCHED_IDLE
    except ProcessLookupError:
        return False
