"""Describes the machine that was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adprior_runtime.cpu_count import available_processors


def describe_machine() -> dict[str, Any]:
    """Return the processor, CPUs, load average and versions of libraries."""
    return {
        "processor": _processor(),
        "cpus": available_processors(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "nvidia_pytriton": _version("nvidia-pytriton"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
