"""The command ``adprior`` in a process of its own, what it wrote, and waiting for it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from adprior_runtime.cli import main

COMMAND: Final = (
    sys.executable,
    "-c",
    "import sys; from adprior_runtime.cli import main; sys.exit(main())",
)

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    ["adprior_build.commands.build", "adprior_build.training.fine_tuning"]
)


def start_adprior(arguments: list[str]) -> BaseProcess:
    """Start the command in a process that needs no time for imports, to be killed at its work."""
    process = _forkserver.Process(target=main, args=(arguments,))
    process.start()
    return process


def run_adprior(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, whatever its exit status."""
    return run(*COMMAND, *arguments, **options)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its exit status; its output is text."""
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def await_true(
    condition: Callable[[], object],
    message: str = "",
    *,
    timeout_s: float = 240,
    poll_s: float = 0.02,
) -> None:
    """Return once a condition holds; fail with the message after the timeout.

    The default timeout suits a busy machine and is shorter than a test's.
    """
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, message
        time.sleep(poll_s)


def hash_directory(directory: Path) -> str:
    """Hash names and contents, without the run's duration in ``training.json``."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "training.json":
                content = json.dumps(json.loads(content) | {"run": None}).encode()
            total.update(str(path.relative_to(directory)).encode() + content)
    return total.hexdigest()
