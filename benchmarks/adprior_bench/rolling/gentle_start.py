"""Starts a server on processors that are free at the moment, and lifts its priority afterwards.

Seven processes of a starting server load Python and its libraries at once. On a machine that serves
already, the calls would wait for them. The scheduling class for idle work (``SCHED_IDLE``) takes
next to nothing from others. Every user may enter it; to leave it again takes ``CAP_SYS_NICE`` or a
limit ``RLIMIT_NICE`` that admits the thread's nice value.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from adprior_runtime.errors import EnvironmentProblemError

_ROUNDS: Final = 5
"""A thread that starts while the others are lifted has its parent's old class."""


def require_right() -> None:
    """Check that this process may leave the class for idle work.

    A thread of its own tries: the caller's class stays.

    Raises:
        EnvironmentProblemError: It may not.
    """
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(_enter_and_leave).result()
        except PermissionError as error:
            found, _ = psutil.Process().rlimit(psutil.RLIMIT_NICE)
            needed = 20 - os.getpriority(os.PRIO_PROCESS, 0)
            raise EnvironmentProblemError(
                "--gentle-start: found no right to leave the scheduling class for idle work "
                f"(`ulimit -e`: {found}), expected CAP_SYS_NICE (root) or `ulimit -e`: {needed}"
            ) from error


def _enter_and_leave() -> None:
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setscheduler(0, before, os.sched_param(0))


@contextmanager
def on_idle_processors() -> Iterator[None]:
    """Run a block, and the processes that it starts, in the class for idle work.

    Raises:
        EnvironmentProblemError: This process could not leave the class again; nothing has changed.
    """
    require_right()
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
