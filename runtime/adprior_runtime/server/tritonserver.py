"""A tritonserver as a child process: started, watched until it is ready, stopped without remains.

It runs in its own process group, away from the source tree (its Python stub has ``''`` on
``sys.path``), and is told to stop by the kernel should its parent be killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from adprior_runtime.contract import CPU_CONFIG_NAME, DEVICE_VARIABLE
from adprior_runtime.errors import (
    AdpriorError,
    EnvironmentProblemError,
    InvalidInputError,
    ServerAbortedError,
)
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints
from adprior_runtime.server.installation import find_installation
from adprior_runtime.server.launch import EXIT_TIMEOUT_S, compose_command, spawn
from adprior_runtime.server.log import explain_failure, has_begun
from adprior_runtime.server.process_arguments import blank_arguments
from adprior_runtime.server.processes import find_model_processes, is_unasked_for
from adprior_runtime.server.scratch import Scratch

_POLL_S: Final = 0.05
_WATCH_S: Final = 0.25
_STARTS: Final = 3
"""On a busy machine, about one start of thirty aborts by itself."""
_log = logging.getLogger("adprior")


class TritonServer:
    """A running tritonserver; a context manager that stops it.

    Attributes:
        process: The server's process, leader of its own process group.
        endpoints: Where it listens.
        log_file: What it logs to.
        hides_tokens: Whether its tokens are out of its arguments, where every user of the machine
            could read them; None until it has started.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        endpoints: Endpoints,
        log_file: Path,
        scratch: Scratch,
        access: Access,
    ) -> None:
        self.process = process
        self.endpoints = endpoints
        self.log_file = log_file
        self.hides_tokens: bool | None = None
        self._scratch = scratch
        self._access = access
        self._models: Mapping[int, str] = {}
        self._lost_model = ""

    @classmethod
    def start(
        cls,
        repository: Path,
        *,
        host: str = "127.0.0.1",
        http_host: str = "127.0.0.1",
        metrics_host: str = "127.0.0.1",
        grpc_port: int = 8001,
        http_port: int = 8000,
        metrics_port: int = 8002,
        access: Access | None = None,
        is_insecure: bool = False,
        config_name: str | None = CPU_CONFIG_NAME,
        device: str = "cpu",
        backends: Sequence[Path] = (),
        log_file: Path | None = None,
        ready_timeout_s: float = 120,
    ) -> Self:
        """Start a server on ``repository`` and return once it is ready.

        Call it from a thread that outlives the server: the kernel stops the server when the thread
        that started it ends.

        Args:
            repository: The model repository.
            host: The address to bind for gRPC.
            http_host: That for HTTP, which has no TLS.
            metrics_host: That for Prometheus, likewise.
            grpc_port: The port for gRPC.
            http_port: The port for HTTP.
            metrics_port: The port for Prometheus.
            access: Who may ask it what; by default anyone, but for what changes the server.
            is_insecure: Whether it may take plain text from other machines.
            config_name: Which ``configs/NAME.pbtxt`` to prefer; None for ``config.pbtxt`` alone.
            device: What the embedded engine runs on, ``cpu`` or ``cuda``.
            backends: Directories of further backends written in Python, for the embedded server.
            log_file: Where the server's log goes; by default a file that goes with the server.
            ready_timeout_s: How long the models may take to load.

        Raises:
            InvalidInputError: A port is in use, log file or repository cannot be opened, or it
                would take plain text from other machines and is not told to.
            ArtefactError: A model did not load.
            EnvironmentProblemError: There is no server that this machine can run, or it did not
                become ready in time.
        """
        if not repository.is_dir():
            raise InvalidInputError(f"{repository}: no such directory")
        access = Access() if access is None else access
        endpoints = Endpoints(
            host=host,
            http_host=http_host,
            metrics_host=metrics_host,
            grpc_port=grpc_port,
            http_port=http_port,
            metrics_port=metrics_port,
        )
        if not is_insecure:
            endpoints.require_closed(has_tls=access.tls is not None)
        launched = (repository, endpoints, access, config_name, device, backends, log_file)
        started = 0
        while True:
            endpoints.check_free()
            started += 1
            server = cls._launch(*launched)
            try:
                server._await_ready(ready_timeout_s)
            except BaseException as error:
                server.stop()
                if not isinstance(error, ServerAbortedError):
                    raise
                if started == _STARTS:
                    told = f"{error}, {_STARTS} times in a row; is the machine too busy?"
                    raise ServerAbortedError(told) from error
                _log.warning("adprior: %s; starting it again", error)
            else:
                return server

    @classmethod
    def _launch(
        cls,
        repository: Path,
        endpoints: Endpoints,
        access: Access,
        config_name: str | None,
        device: str,
        further_backends: Sequence[Path],
        log_file: Path | None,
    ) -> Self:
        installation = find_installation()
        if further_backends and not installation.is_embedded:
            raise InvalidInputError(
                f"{further_backends[0]}: {installation.binary} has backends of its own; "
                "put further ones there"
            )
        scratch = Scratch.make()
        log_file = (log_file or scratch.directory / "server.log").absolute()
        try:
            backends = scratch.directory / "backends" if installation.is_embedded else None
            if backends is not None:
                installation.copy_backends(backends, further_backends)
            command = compose_command(
                installation,
                repository,
                endpoints,
                config_name=config_name,
                backend_directory=backends,
                shared_memory_prefix=scratch.directory.name,
                access=access,
            )
            environment = installation.environment() | {DEVICE_VARIABLE: device}
            process = spawn(command, environment, scratch, log_file)
        except BaseException:
            scratch.remove()
            raise
        return cls(process, endpoints, log_file, scratch, access)

    @property
    def grpc_address(self) -> str:
        """``host:port`` for gRPC clients on this machine."""
        return self.endpoints.grpc_address

    @property
    def http_address(self) -> str:
        """``host:port`` for HTTP clients on this machine."""
        return self.endpoints.http_address

    @property
    def metrics_address(self) -> str:
        """``host:port`` where Prometheus finds ``/metrics``."""
        return self.endpoints.metrics_address

    def wait(self) -> int:
        """Block until the server ends by itself, or a Python model of it; return its exit status.

        A server that lost a model's process is killed: it would never answer for that model again.
        """
        ended: set[int] = set()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(_WATCH_S)
            # Seen twice: a server that stops asks for its models' statuses soon, not at once.
            unasked = {pid for pid in self._models if is_unasked_for(pid, self.process.pid)}
            for pid in unasked & ended:
                self._lost_model = self._models[pid]
                self.kill()
                return self.process.wait()
            ended = unasked

    def failure(self) -> AdpriorError:
        """Return why a server ended that nobody stopped, as its log tells it."""
        status = self.process.wait()
        if self._lost_model:
            return EnvironmentProblemError(
                f"model {self._lost_model}: its process ended, and Triton does not start it again"
            )
        ended = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return explain_failure(self.log_file) or EnvironmentProblemError(
            f"tritonserver ended {ended}, and its log does not say why"
        )

    def serve_on(self, seconds: float) -> None:
        """Wait for so long, or until the server ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def kill(self) -> None:
        """End the server and everything it started at once; `stop` it still, which cleans up."""
        self._signal_group(signal.SIGKILL)

    def stop(self, timeout_s: float = EXIT_TIMEOUT_S + 5) -> None:
        """End the server and everything it started; kill what is left after ``timeout_s``."""
        try:
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        finally:
            # The Python models' processes notice the server's end by themselves, but not at once.
            self.kill()
            self.process.wait()
            self._scratch.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _hide(self, *, is_ready: bool) -> None:
        """Keep from other users of the machine what the server shows them on its own."""
        for region in self._scratch.shared_memory():
            with contextlib.suppress(FileNotFoundError):
                region.chmod(0o600)  # made for all to read, and users' contexts pass through it
        if self.hides_tokens is None and (is_ready or has_begun(self.log_file)):
            self.hides_tokens = blank_arguments(self.process.pid, self._access.tokens)

    def _await_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.endpoints.is_ready():
            self._hide(is_ready=False)
            if self.process.poll() is not None:
                raise self.failure()
            if time.monotonic() > deadline:
                raise EnvironmentProblemError(
                    f"tritonserver was not ready within {timeout_s:g} s; allow more with "
                    "--ready-timeout, or see its log with --log-file"
                )
            time.sleep(_POLL_S)
        self._hide(is_ready=True)
        # Before anyone is told: of one that has ended, nothing tells which model it ran.
        self._models = find_model_processes(self.process.pid)
