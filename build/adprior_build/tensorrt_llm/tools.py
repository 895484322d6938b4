"""NVIDIA's tools on this machine: check their versions and the GPU, and run them.

All checks use PATH and the programs' output, so that a machine without a GPU is not confused with
one whose tools are broken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.tool_commands import Step, step_environment
from adprior_runtime.engines.gpu_faults import explain_gpu_fault
from adprior_runtime.engines.registry import GPU_IMAGE, TENSORRT_LLM_VERSION
from adprior_runtime.errors import EnvironmentProblemError

_ASK_VERSION: Final = (
    "python3",
    "-c",
    "import importlib.metadata as m\n"
    "try: print(m.version('tensorrt_llm'))\n"
    "except m.PackageNotFoundError: print('none')",
)
_ASK_GPU: Final = (
    "nvidia-smi",
    "--query-gpu=name,memory.total",
    "--format=csv,noheader,nounits",
)
_TAIL_LINES: Final = 15
_SLACK_GIB: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The name of the first GPU in ``nvidia-smi``, and its memory in GiB."""

    name: str
    memory_gib: float


def check_container(examples: Path, steps: list[Step]) -> None:
    """Check that the steps can run here: the programs, the scripts, the version of TensorRT-LLM.

    Raises:
        EnvironmentProblemError: A program or script is missing, or the version is another.
    """
    programs = {step.command[0] for step in steps}
    scripts = [Path(step.command[1]) for step in steps if step.command[0] == "python3"]
    missing = [name for name in sorted(programs) if shutil.which(name) is None]
    missing += [str(script) for script in scripts if not script.is_file()]
    version = _ask_version()
    if version is None:
        raise EnvironmentProblemError(
            f"TensorRT-LLM is not installed here; run this command inside {GPU_IMAGE} (see "
            "docs/gpu.md), or add --dry-run to only print the commands"
        )
    if version != TENSORRT_LLM_VERSION:
        raise EnvironmentProblemError(
            f"TensorRT-LLM {version} is installed, expected {TENSORRT_LLM_VERSION}: the tools' "
            f"options and the engines' format differ between versions; use {GPU_IMAGE}"
        )
    if missing:
        raise EnvironmentProblemError(
            f"{', '.join(missing)}: not found, though TensorRT-LLM {version} is installed; run "
            f"this command inside {GPU_IMAGE}, or give the directory of its example scripts with "
            f"--examples (now {examples})"
        )


def find_gpu() -> Gpu:
    """Ask ``nvidia-smi`` for the first GPU.

    Raises:
        EnvironmentProblemError: There is no driver or no GPU; with what to do.
    """
    try:
        asked = subprocess.run(  # noqa: S603
            _ASK_GPU, capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        raise EnvironmentProblemError(
            "no NVIDIA driver is visible (no nvidia-smi); start the container with --gpus all "
            "(compose: the nvidia device reservation)"
        ) from None
    except subprocess.TimeoutExpired:
        raise EnvironmentProblemError(
            "nvidia-smi did not answer within 60 s: the NVIDIA driver hangs; restart the node"
        ) from None
    if asked.returncode != 0 or "," not in asked.stdout:
        output = asked.stdout + asked.stderr
        raise EnvironmentProblemError(
            explain_gpu_fault(output)
            or f"nvidia-smi failed with status {asked.returncode}: {' '.join(output.split())[:200]}"
        )
    name, _, memory = asked.stdout.strip().splitlines()[0].rpartition(",")
    try:
        return Gpu(name=name.strip(), memory_gib=float(memory) / 1024)
    except ValueError:
        raise EnvironmentProblemError(
            f"nvidia-smi printed {asked.stdout.strip()!r}, expected a name and MiB"
        ) from None


def require_gpu(deployment: Deployment, gpu: Gpu) -> None:
    """Check that the GPU is the deployment's: an engine runs only on the type it was built on.

    Raises:
        EnvironmentProblemError: It has another type, or less memory.
    """
    words = gpu.name.replace("-", " ").split()
    if deployment.gpu not in words:
        raise EnvironmentProblemError(
            f"the GPU is {gpu.name!r}, the deployment says {deployment.gpu}; engines run only on "
            "the type of GPU that they were built on"
        )
    if gpu.memory_gib < deployment.memory_gib - _SLACK_GIB:
        raise EnvironmentProblemError(
            f"the GPU has {gpu.memory_gib:.1f} GiB, the deployment says {deployment.memory_gib:g}; "
            "set memory_gib to what nvidia-smi reports (MiB / 1024)"
        )


def run_step(step: Step, work: Path) -> None:
    """Run one step in ``work``, with its output in ``NAME.log``.

    Raises:
        EnvironmentProblemError: It failed; its last lines were printed to standard error.
    """
    log_file = work / f"{step.name}.log"
    with log_file.open("w", encoding="utf-8") as log:
        done = subprocess.run(  # noqa: S603
            step.command,
            cwd=work,
            env=os.environ | step_environment(work),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode == 0:
        return
    tail = _tail(log_file)
    print(f"adprior build: the last lines of {log_file}:", file=sys.stderr)
    print("".join(f"  {line}\n" for line in tail), end="", file=sys.stderr)
    advice = explain_gpu_fault("\n".join(tail)) or f"the reason is in {log_file}"
    raise EnvironmentProblemError(
        f"step {step.name} ({Path(step.command[0]).name}) failed with status {done.returncode}: "
        f"{advice}"
    )


def _ask_version() -> str | None:
    """Return the version of TensorRT-LLM in the tools' Python; None if it is missing."""
    try:
        asked = subprocess.run(  # noqa: S603
            _ASK_VERSION, capture_output=True, text=True, check=False, timeout=60
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.split()
    return None if asked.returncode != 0 or not lines or lines[-1] == "none" else lines[-1]


def _tail(log_file: Path) -> list[str]:
    with log_file.open(encoding="utf-8", errors="replace") as log:
        return [line.rstrip("\n") for line in deque(log, maxlen=_TAIL_LINES)]
