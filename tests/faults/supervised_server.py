"""The real ``adprior serve``, with a supervisor that starts it again when it ends."""

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
from typing import Self

import psutil

from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.processes import find_model_processes
from support.processes import COMMAND

TESTS = Path(__file__).parents[1]
_RESTART_S = 0.2
"""Pause between an end and the next start, as in an init system (systemd: 0.1 s)."""


class SupervisedServer:
    """`adprior serve` on ports that stay the same; a context manager that stops it.

    Args:
        repository: The repository to serve.
        options: Options of ``adprior serve``; it does not drain by default.
        flags: Flags of tritonserver, for `serve_with_flags`.
        host: A loopback address for gRPC; by default the usual one.
        grpc_port: The port there; by default a free one.

    Attributes:
        url: Address for gRPC clients.
        ends: The error output of each `adprior serve` that ended by itself.
    """

    def __init__(
        self,
        repository: Path,
        options: Sequence[str] = (),
        *,
        flags: Sequence[str] = (),
        host: str | None = None,
        grpc_port: int | None = None,
    ) -> None:
        free_port, self._http_port, metrics_port = free_ports(3)
        grpc_port = grpc_port or free_port
        serve = [*COMMAND, "serve"]
        if flags:
            serve = [sys.executable, "-m", "faults.serve_with_flags", *flags, "--"]
        self._arguments = [
            *serve,
            *("--repository", str(repository), "--drain-seconds", "0", *options),
            *("--grpc-port", str(grpc_port), "--http-port", str(self._http_port)),
            *("--metrics-port", str(metrics_port)),
            *(() if host is None else ("--host", host)),
        ]
        self.url = f"{host or 'localhost'}:{grpc_port}"
        self.ends: list[str] = []
        self._closing = threading.Event()
        self._command: subprocess.Popen[str] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the server
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Self:
        self._supervisor.start()
        self.await_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.start_no_more()
        self.resume()
        if self._command is not None:
            self._command.terminate()
        # Triton would wait for five seconds before it stops.
        with contextlib.suppress(AssertionError, psutil.Error, ProcessLookupError):
            os.killpg(self.tritonserver.pid, signal.SIGKILL)
        self._supervisor.join(timeout=60)
        self._output.close()

    def await_ready(self, timeout_s: float = 60) -> None:
        """Wait until tritonserver is ready and `adprior serve` has said so."""
        deadline = time.monotonic() + timeout_s
        while not (self.is_ready() and self._is_announced()):
            assert time.monotonic() < deadline, f"the server is not ready; ends: {self.ends}"
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Return the server's own answer."""
        url = f"http://127.0.0.1:{self._http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            return False

    @property
    def tritonserver(self) -> psutil.Process:
        """The tritonserver."""
        for child in self._serve.children():
            if child.name().startswith("tritonserver"):
                return child
        raise AssertionError("no tritonserver runs")

    def stubs(self, model: str) -> list[psutil.Process]:
        """Return the processes of a Python model, one for each instance."""
        found = find_model_processes(self.tritonserver.pid)
        stubs = [psutil.Process(pid) for pid, name in sorted(found.items()) if name == model]
        assert stubs, f"no process runs {model}"
        return stubs

    def processes(self) -> list[psutil.Process]:
        """Return all processes that a container would hold: `adprior serve` and its descendants."""
        return [self._serve, *self._serve.children(recursive=True)]

    def pause(self) -> None:
        """Stop the server and its models with SIGSTOP."""
        os.killpg(self.tritonserver.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue them."""
        with contextlib.suppress(AssertionError, psutil.Error, ProcessLookupError):
            os.killpg(self.tritonserver.pid, signal.SIGCONT)

    def terminate(self) -> subprocess.Popen[str]:
        """Send SIGTERM to `adprior serve`, as an init system does; return its process."""
        assert self._command is not None
        self._command.terminate()
        return self._command

    def start_no_more(self) -> None:
        """Stop the supervisor; what runs now goes on."""
        self._closing.set()

    def restart(self) -> None:
        """Stop `adprior serve` as an operator does, and wait for the next one."""
        before = self.terminate()
        before.wait(60)
        deadline = time.monotonic() + 30
        while self._command is before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.await_ready()

    @property
    def _serve(self) -> psutil.Process:
        assert self._command is not None
        return psutil.Process(self._command.pid)

    def _is_announced(self) -> bool:
        return os.pread(self._output.fileno(), 4096, 0).startswith(b"adprior: ready")

    def _supervise(self) -> None:
        while not self._closing.is_set():
            self._output.truncate(0)
            self._output.seek(0)
            with subprocess.Popen(
                self._arguments,
                cwd=TESTS,
                stdout=self._output,
                stderr=subprocess.PIPE,
                text=True,
            ) as self._command:
                _, errors = self._command.communicate()
                if self._command.returncode:
                    self.ends.append(errors.strip())
            self._closing.wait(_RESTART_S)
