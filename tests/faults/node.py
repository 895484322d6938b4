"""One node: the real ``adprior serve``, below a supervisor that starts it again when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.processes import find_model_processes
from integration.test_kills import COMMAND

TESTS = Path(__file__).parents[1]
_RESTART_S = 0.2
"""Between an end and the next start, as an init system waits (systemd: 0.1 s)."""


class Node:
    """A supervised server on ports that stay the same; a context manager that stops it.

    Args:
        repository: What it serves.
        options: Of ``adprior serve``, which does not drain unless they say so.
        flags: Of tritonserver, where `serve_with_flags` says why.

    Attributes:
        url: Where gRPC clients find it.
        ends: What `adprior serve` said each time that it ended by itself.
    """

    def __init__(
        self, repository: Path, options: Sequence[str] = (), *, flags: Sequence[str] = ()
    ) -> None:
        self._repository = repository
        self._options = ["--drain-seconds", "0", *options]
        self._flags = list(flags)
        self._grpc_port, self._http_port, self._metrics_port = free_ports(3)
        self.url = f"localhost:{self._grpc_port}"
        self.ends: list[str] = []
        self._closing = threading.Event()
        self._command: subprocess.Popen[str] | None = None
        self._told = tempfile.TemporaryFile()  # noqa: SIM115  as long as the node
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Self:
        self._supervisor.start()
        self.await_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self.resume()
        if self._command is not None:
            self._command.terminate()
        self._supervisor.join(timeout=60)
        self._told.close()

    def await_ready(self, timeout_s: float = 60) -> None:
        """Block until the server says that it is ready, and `adprior serve` has said so too."""
        deadline = time.monotonic() + timeout_s
        while not (self.is_ready() and self._is_announced()):
            assert time.monotonic() < deadline, f"the node is not ready; it ended: {self.ends}"
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Tell what the server says of itself."""
        url = f"http://127.0.0.1:{self._http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            return False

    @property
    def server(self) -> psutil.Process:
        """The tritonserver."""
        assert self._command is not None
        for child in psutil.Process(self._command.pid).children():
            if child.name().startswith("tritonserver"):
                return child
        raise AssertionError("no tritonserver runs")

    def stubs(self, model: str) -> list[psutil.Process]:
        """The processes that run a Python model, one for each instance."""
        found = find_model_processes(self.server.pid)
        stubs = [psutil.Process(pid) for pid, name in sorted(found.items()) if name == model]
        assert stubs, f"no process runs {model}"
        return stubs

    def processes(self) -> list[psutil.Process]:
        """`adprior serve`, its server, and the server's models: what a container holds."""
        assert self._command is not None
        command = psutil.Process(self._command.pid)
        return [command, *command.children(recursive=True)]

    def pause(self) -> None:
        """Stop the server and its models in their tracks."""
        os.killpg(self.server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        with contextlib.suppress(AssertionError, psutil.Error, ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGCONT)

    def terminate(self) -> subprocess.Popen[str]:
        """Send `adprior serve` what an init system sends to stop it; return the process."""
        assert self._command is not None
        self._command.terminate()
        return self._command

    def start_no_more(self) -> None:
        """Have the supervisor leave it at what runs now."""
        self._closing.set()

    def restart(self) -> None:
        """Stop `adprior serve` as an operator does, and wait for the supervisor's next one."""
        before = self.terminate()
        before.wait(60)
        deadline = time.monotonic() + 30
        while self._command is before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.await_ready()

    def _is_announced(self) -> bool:
        return os.pread(self._told.fileno(), 4096, 0).startswith(b"adprior: ready")

    def _supervise(self) -> None:
        while not self._closing.is_set():
            self._told.truncate(0)
            self._told.seek(0)
            with subprocess.Popen(
                self._arguments(),
                cwd=TESTS,
                stdout=self._told,
                stderr=subprocess.PIPE,
                text=True,
            ) as self._command:
                _, told = self._command.communicate()
                if self._command.returncode:
                    self.ends.append(told.strip())
            self._closing.wait(_RESTART_S)

    def _arguments(self) -> list[str]:
        ports = {"grpc": self._grpc_port, "http": self._http_port, "metrics": self._metrics_port}
        serve = [*COMMAND, "serve"]
        if self._flags:
            serve = [sys.executable, "-m", "faults.serve_with_flags", *self._flags, "--"]
        return [
            *serve,
            *("--repository", str(self._repository)),
            *self._options,
            *(f"--{name}-port={port}" for name, port in ports.items()),
        ]
