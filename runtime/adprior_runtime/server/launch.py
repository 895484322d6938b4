"""The tritonserver process: its command line, and how it is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from adprior_runtime.contract import CPU_CONFIG_NAME
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints
from adprior_runtime.server.installation import Installation
from adprior_runtime.server.scratch import Scratch

EXIT_TIMEOUT_S: Final = 10
"""How long a stopping server waits for requests in flight."""

# Becomes the server, which the kernel tells to stop when its parent is gone. It is a process of its
# own since code between fork and exec is not safe beside threads, gRPC's for one.
_END_WITH_PARENT: Final = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else it went before we asked
    os.execv(sys.argv[2], sys.argv[2:])
"""
_PRIVATE: Final = 0o077
"""The server's umask: what it writes is its own."""


def compose_command(
    installation: Installation,
    repository: Path,
    endpoints: Endpoints,
    *,
    config_name: str | None = CPU_CONFIG_NAME,
    backend_directory: Path | None = None,
    shared_memory_prefix: str = "adprior",
    access: Access | None = None,
) -> list[str]:
    """Return the server's command line.

    Args:
        installation: The server.
        repository: The model repository.
        endpoints: Where it listens.
        config_name: Which ``configs/NAME.pbtxt`` to prefer; None for ``config.pbtxt`` alone.
        backend_directory: The backends, where the server does not have its own.
        shared_memory_prefix: Begins the names of the Python backend's files in ``/dev/shm``.
        access: Who may ask it what; by default anyone, but for what changes the server.
    """
    access = Access() if access is None else access
    command = [
        str(installation.binary),
        f"--model-repository={repository.absolute()}",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        f"--grpc-address={endpoints.host}",
        f"--http-address={endpoints.http_host}",
        f"--metrics-address={endpoints.metrics_host}",
        *(f"{flag}={port}" for flag, port in endpoints.ports.items()),
    ]
    if config_name is not None:
        command.append(f"--model-config-name={config_name}")
    if backend_directory is not None:
        command.append(f"--backend-directory={backend_directory}")
    return [*command, *access.flags()]


def spawn(
    command: list[str], environment: dict[str, str], scratch: Scratch, log_file: Path
) -> subprocess.Popen[bytes]:
    """Start ``command`` in ``scratch`` and a process group of its own, all output to a file.

    Raises:
        InvalidInputError: The log file cannot be written.
    """
    try:
        log = log_file.open("wb")
    except OSError as error:
        raise InvalidInputError(f"{log_file}: cannot be written ({error.strerror})") from error
    with log:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command],
            cwd=scratch.directory,
            pass_fds=[scratch.descriptor],
            # With this one, tritonserver would open Vertex AI's endpoint to the network.
            env={name: value for name, value in environment.items() if name != "AIP_MODE"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            umask=_PRIVATE,
        )
