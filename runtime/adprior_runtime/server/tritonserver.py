"""A tritonserver as a child process: start, wait until it is ready, stop, and clean up.

The kernel stops the server when its parent is killed.
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

from adprior_runtime.contract import Target
from adprior_runtime.errors import (
    AdpriorError,
    EnvironmentProblemError,
    InvalidInputError,
    ServerAbortedError,
)
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints
from adprior_runtime.server.launch import EXIT_TIMEOUT_S, Launch
from adprior_runtime.server.log import explain_failure, has_begun
from adprior_runtime.server.processes import blank_arguments, find_model_processes, is_zombie

_POLL_S: Final = 0.05
_WATCH_S: Final = 0.25
_MAX_STARTS: Final = 3
"""Attempts to start: on a busy machine, about one start in thirty aborts."""
_log = logging.getLogger("adprior")


class TritonServer:
    """A running tritonserver; a context manager that stops it.

    Attributes:
        process: The server's process, leader of its own process group.
        endpoints: Its addresses and ports.
        log_file: Its log file.
        hides_tokens: Whether the tokens were removed from its arguments, which every user of the
            machine can read; None until it has started.
    """

    def __init__(self, launch: Launch) -> None:
        self.process, self.log_file, self._scratch = launch.start()
        self.endpoints = launch.endpoints
        self.hides_tokens: bool | None = None
        self._tokens = launch.access.tokens
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
        target: Target = Target.CPU,
        backends: Sequence[Path] = (),
        log_file: Path | None = None,
        ready_timeout_s: float = 120,
    ) -> Self:
        """Start a server and return once it is ready.

        Call it from a thread that outlives the server: the kernel stops the server when the thread
        that started it ends.

        `Endpoints` describes hosts and ports, `Launch` the other options. ``is_insecure`` accepts
        plain text from other machines. ``ready_timeout_s`` is the longest time to load the models.

        Raises:
            InvalidInputError: A port is in use, log file or repository cannot be opened, or other
                machines could call in plain text although ``is_insecure`` is false.
            ArtefactError: A model did not load.
            EnvironmentProblemError: There is no server that this machine can run, or it did not
                become ready in time.
        """
        if not repository.is_dir():
            raise InvalidInputError(f"{repository}: no such directory")
        launch = Launch(
            repository=repository,
            endpoints=Endpoints(
                host=host,
                http_host=http_host,
                metrics_host=metrics_host,
                grpc_port=grpc_port,
                http_port=http_port,
                metrics_port=metrics_port,
            ),
            access=Access() if access is None else access,
            target=target,
            backends=backends,
            log_file=log_file,
        )
        if not is_insecure:
            launch.endpoints.require_closed(has_tls=launch.access.tls is not None)
        attempt = 0
        while True:
            launch.endpoints.check_free()
            attempt += 1
            server = cls(launch)
            try:
                server._await_ready(ready_timeout_s)
            except BaseException as error:
                server.stop()
                if not isinstance(error, ServerAbortedError):
                    raise
                if attempt == _MAX_STARTS:
                    message = f"{error}, {_MAX_STARTS} times in a row; is the machine too busy?"
                    raise ServerAbortedError(message) from error
                _log.warning("adprior: %s; starting it again", error)
            else:
                return server

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
        """Block until the server ends by itself, or one of its models does; return its exit status.

        A server that lost a model's process is killed: it would never answer for that model again.
        """
        earlier: set[int] = set()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(_WATCH_S)
            zombies = {pid for pid in self._models if is_zombie(pid, self.process.pid)}
            # Only if seen twice: a server that stops collects the statuses after a short time.
            for pid in zombies & earlier:
                self._lost_model = self._models[pid]
                self.kill()
                return self.process.wait()
            earlier = zombies

    def failure(self) -> AdpriorError:
        """Return from the log why a server ended that nobody stopped."""
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
        """Wait ``seconds``, or until the server ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def kill(self) -> None:
        """Kill the server and everything it started; call `stop` afterwards to clean up."""
        self._signal_group(signal.SIGKILL)

    def stop(self, timeout_s: float = EXIT_TIMEOUT_S + 5) -> None:
        """End the server and everything it started; kill the rest after ``timeout_s``."""
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
        """Hide users' data and tokens, which other users of the machine could read by default."""
        for region in self._scratch.shared_memory():
            with contextlib.suppress(FileNotFoundError):
                region.chmod(0o600)  # user contexts pass through it, and everyone could read it
        if self.hides_tokens is None and (is_ready or has_begun(self.log_file)):
            self.hides_tokens = blank_arguments(self.process.pid, self._tokens)

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
        # Found now: when a process has ended, nothing shows which model it ran.
        self._models = find_model_processes(self.process.pid)
