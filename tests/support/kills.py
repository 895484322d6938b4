"""Runs `adprior` in a process of its own that is killed at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from adprior_runtime.cli import main
from adprior_runtime.delivery import staging

_EVENTS: Final = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod"}
_EXCHANGE: Final = "renameat2"
PART_BYTES: Final = 60_000
"""Files of the tests have several parts."""
_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    ["adprior_runtime.commands.push", "adprior_runtime.commands.pull"]
)


def run_until_killed(moment: int, root: Path, *arguments: str | Path) -> bool:
    """Run a command; SIGKILL ends it just before it touches the file system once more.

    Args:
        moment: The number of the operation on files below ``root`` that does not happen.
        root: Where operations count.
        arguments: The command.

    Returns:
        Whether it was killed; False if it ended by itself, well.
    """
    process = _forkserver.Process(target=_run, args=(moment, str(root), [*map(str, arguments)]))
    process.start()
    process.join(120)
    assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
    return process.exitcode != 0


def _run(moment: int, root: str, arguments: list[str]) -> None:
    left = moment
    staging.PART_BYTES = PART_BYTES  # type: ignore[misc]  # in this process only

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        is_file = event in _EVENTS and isinstance(details[0], str | bytes | os.PathLike)
        is_exchange = event == "ctypes.dlsym" and details[1] == _EXCHANGE
        if is_exchange or (is_file and os.fsdecode(details[0]).startswith(root)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sys.exit(main(arguments))
