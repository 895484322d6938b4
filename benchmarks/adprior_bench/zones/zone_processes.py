"""Starts, loses and brings back zones of simulated servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from adprior_bench.zones.simulated_zone import ZoneSettings
from adprior_runtime.errors import EnvironmentProblemError

KILLED: Final = "killed"
SILENT: Final = "silent"
FAULTS: Final = (KILLED, SILENT)
"""How a zone is lost. Killed: its servers refuse connections. Silent: they accept requests and
never answer."""


class Zone:
    """One zone: a process with its simulated servers.

    Args:
        settings: Of the servers.
    """

    def __init__(self, settings: ZoneSettings) -> None:
        self._settings = settings
        self._process = self._start()

    @property
    def urls(self) -> list[str]:
        """The address of each server."""
        return [f"127.0.0.1:{port}" for port in self._settings.ports]

    def lose(self, fault: str) -> None:
        """Lose the zone, in one of the `FAULTS`."""
        self._process.send_signal(signal.SIGKILL if fault == KILLED else signal.SIGSTOP)

    def bring_back(self, fault: str) -> None:
        """Bring a lost zone back, on the same ports."""
        if fault == SILENT:
            self._process.send_signal(signal.SIGCONT)
        else:
            self.end()
            self._process = self._start()

    def end(self) -> None:
        """Kill the process, whatever its state."""
        with self._process as process:
            process.kill()

    def await_ready(self) -> None:
        """Wait until all servers listen.

        Raises:
            EnvironmentProblemError: The process ended before.
        """
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            self._process.wait()
            raise EnvironmentProblemError(
                f"the simulated servers of ports {', '.join(map(str, self._settings.ports))} "
                f"ended with code {self._process.returncode} before they were ready"
            )

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "adprior_bench.zones.simulated_zone"]
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if process.stdin is not None:
            process.stdin.write(self._settings.to_json())
            process.stdin.flush()
        return process


@contextmanager
def running_zones(settings: Sequence[ZoneSettings]) -> Iterator[list[Zone]]:
    """Start zones, wait until they serve, and end them."""
    zones: list[Zone] = []
    try:
        zones.extend(Zone(each) for each in settings)
        for zone in zones:
            zone.await_ready()
        yield zones
    finally:
        for zone in zones:
            zone.end()
