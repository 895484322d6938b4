"""Starts a tritonserver process: its files, its command line, and its process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adprior_runtime.contract import Target
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints
from adprior_runtime.server.installation import Installation, find_installation
from adprior_runtime.server.scratch import Scratch

EXIT_TIMEOUT_S: Final = 10
"""Longest time that a stopping server waits for requests in flight."""

# This program becomes the server, which the kernel stops when the parent is gone. It is a separate
# process because code between fork and exec is not safe beside threads, such as gRPC's.
_END_WITH_PARENT: Final = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else the parent ended before this call
    os.execv(sys.argv[2], sys.argv[2:])
"""
_UMASK: Final = 0o077
"""Nobody else can read what the server writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The settings that a server is started with.

    Attributes:
        repository: The model repository.
        endpoints: Its addresses and ports.
        access: Who may call what; by default everyone may make calls that do not change the server.
        target: The configuration of the models.
        backends: Directories of more backends written in Python, for the embedded server.
        log_file: The file for the server's log; None for one that is removed with the server.
    """

    repository: Path
    endpoints: Endpoints
    access: Access = field(default_factory=Access)
    target: Target = Target.CPU
    backends: Sequence[Path] = ()
    log_file: Path | None = None

    def start(self) -> tuple[subprocess.Popen[bytes], Path, Scratch]:
        """Start the process; return it, its log file and its scratch directory.

        Raises:
            InvalidInputError: The log file cannot be written, or there are more backends for the
                server on PATH.
            EnvironmentProblemError: There is no server that this machine can run.
        """
        installation = find_installation()
        if self.backends and not installation.is_embedded:
            raise InvalidInputError(
                f"{self.backends[0]}: {installation.binary} has backends of its own; "
                "put more backends there"
            )
        scratch = Scratch.make()
        log_file = (self.log_file or scratch.directory / "server.log").absolute()
        try:
            backend_directory = None
            if installation.is_embedded:
                backend_directory = scratch.directory / "backends"
                installation.copy_backends(backend_directory, self.backends)
            command = self.command(installation, backend_directory, scratch.directory.name)
            process = _spawn(command, installation.environment(), scratch, log_file)
        except BaseException:
            scratch.remove()
            raise
        return process, log_file, scratch

    def command(
        self,
        installation: Installation,
        backend_directory: Path | None = None,
        shared_memory_prefix: str = "adprior",
    ) -> list[str]:
        """Return the server's command line.

        The names of the Python backend's files in ``/dev/shm`` begin with
        ``shared_memory_prefix``.
        """
        optional = {
            "--model-config-name": self.target.config_name,
            "--backend-directory": backend_directory,
        }
        return [
            str(installation.binary),
            f"--model-repository={self.repository.absolute()}",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            "--strict-readiness=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
            f"--grpc-address={self.endpoints.host}",
            f"--http-address={self.endpoints.http_host}",
            f"--metrics-address={self.endpoints.metrics_host}",
            *(f"{flag}={port}" for flag, port in self.endpoints.ports.items()),
            *(f"{flag}={value}" for flag, value in optional.items() if value is not None),
            *self.access.flags(),
        ]


def _spawn(
    command: list[str], environment: dict[str, str], scratch: Scratch, log_file: Path
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a process group of its own, away from the source tree.

    The Python stub has ``''`` on ``sys.path``, so its working directory is the scratch directory.
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
            # With this variable, tritonserver would open Vertex AI's endpoint to the network.
            env={name: value for name, value in environment.items() if name != "AIP_MODE"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            umask=_UMASK,
        )
