"""Runs ``adprior bulk`` as a command; reads its summary and its memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

from adprior_runtime.errors import AdpriorError

_COMMAND: Final = (
    sys.executable,
    "-c",
    "import sys; from adprior_runtime.cli import main; sys.exit(main())",
    "bulk",
)
_SAMPLE_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRun:
    """One run.

    Attributes:
        summary: The output of ``--json``.
        driver_mb: Peak resident memory of the driver.
        ray_mb: Peak resident memory of Ray's own processes together, object store included; shared
            pages count once for each process.
    """

    summary: dict[str, Any]
    driver_mb: float
    ray_mb: float


def run_bulk(arguments: Sequence[str]) -> BulkRun:
    """Run ``adprior bulk`` with ``--json`` and these arguments.

    Raises:
        AdpriorError: The command failed; the message has its last line.
    """
    driver_mb = ray_mb = 0.0
    with subprocess.Popen(  # noqa: S603
        [*_COMMAND, *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watched = psutil.Process(process.pid)
        while True:
            try:
                output, problem = process.communicate(timeout=_SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                driver, ray = _memory_mb(watched)
                driver_mb, ray_mb = max(driver_mb, driver), max(ray_mb, ray)
            except BaseException:
                process.terminate()
                raise
    if process.returncode:
        lines = problem.strip().splitlines() or [f"exit code {process.returncode}"]
        raise AdpriorError(f"adprior bulk failed: {lines[-1]}")
    return BulkRun(summary=json.loads(output), driver_mb=driver_mb, ray_mb=ray_mb)


def _memory_mb(driver: psutil.Process) -> tuple[float, float]:
    """Return the resident memory of the driver, and of Ray's processes without the workers."""
    own = ray = 0.0
    with contextlib.suppress(psutil.Error):
        own = driver.memory_info().rss / 2**20
        for child in driver.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not " ".join(child.cmdline()).startswith("ray::MapWorker"):
                    ray += child.memory_info().rss / 2**20
    return own, ray
