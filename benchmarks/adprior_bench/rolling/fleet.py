"""Real servers on loopback, and the file that lists them for the clients."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from adprior_bench.rolling.gentle_start import lift, on_idle_processors
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer


def start_on_free_ports(repository: Path) -> TritonServer:
    """Start a server on loopback and return it when it is ready."""
    grpc_port, http_port, metrics_port = free_ports(3)
    return TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    )


class Fleet:
    """Servers of which one after another is replaced; a context manager that ends them.

    Enter it, and replace servers, in a thread that outlives it: the kernel ends a server with the
    thread that started it.

    Args:
        repository: The model repository of the first servers.
        count: Their number.
        listing: The file that lists the servers for the clients.
        is_gentle: Whether the servers that come later start on idle processors.
    """

    def __init__(
        self, repository: Path, count: int, listing: Path, *, is_gentle: bool = False
    ) -> None:
        self._repository = repository
        self._count = count
        self._listing = listing
        self._is_gentle = is_gentle
        self._servers: list[TritonServer] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._servers.append(start_on_free_ports(self._repository))
            self._publish()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    @property
    def url(self) -> str:
        """Where the clients find the servers: the file that lists them."""
        return f"file://{self._listing}"

    @property
    def first(self) -> TritonServer:
        """The server that has run for the longest time."""
        return self._servers[0]

    def replace_first(self, repository: Path) -> TritonServer:
        """Start a server, list it instead of the first one, and return that, which still runs."""
        self._servers.append(self._start_beside_others(repository))
        leaving = self._servers.pop(0)
        self._publish()
        return leaving

    def _start_beside_others(self, repository: Path) -> TritonServer:
        if not self._is_gentle:
            return start_on_free_ports(repository)
        with on_idle_processors():
            server = start_on_free_ports(repository)
        lift(server.process.pid)
        return server

    def _publish(self) -> None:
        with replace_file(self._listing) as fresh:
            fresh.write_text("".join(f"{server.grpc_address}\n" for server in self._servers))

    def _end(self) -> None:
        for server in self._servers:
            server.kill()  # no call is under way, and Triton waits for five seconds before it stops
            server.stop()
