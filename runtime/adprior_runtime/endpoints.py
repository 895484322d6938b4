"""Where a server listens, and whether it can."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Final

from adprior_runtime.errors import InvalidInputError

__all__ = ["Endpoints"]

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the server listens."""

    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002

    def __post_init__(self) -> None:
        taken: dict[int, str] = {}
        for flag, port in self.ports.items():
            if not 1 <= port <= 65535:
                raise InvalidInputError(f"{flag}: {port}, expected 1 to 65535")
            if port in taken:
                raise InvalidInputError(f"{taken[port]} and {flag} are both {port}")
            taken[port] = flag

    @property
    def ports(self) -> dict[str, int]:
        """Each port by the flag that sets it."""
        return {
            "--grpc-port": self.grpc_port,
            "--http-port": self.http_port,
            "--metrics-port": self.metrics_port,
        }

    def address(self, port: int) -> str:
        """Return ``host:port`` for a client on this machine."""
        host = self.local_host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def local_host(self) -> str:
        """The host under which this machine reaches the server."""
        return _LOOPBACK.get(self.host, self.host)

    def check_free(self) -> None:
        """Raise InvalidInputError, naming the flag to change, unless every port can be bound."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for flag, port in self.ports.items():
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, port))
                except OSError as error:
                    raise InvalidInputError(self._explain(error, flag, port)) from error

    def _explain(self, error: OSError, flag: str, port: int) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} on {self.host} is in use; choose another with {flag}"
        if error.errno == errno.EACCES:
            return f"port {port} needs privileges; choose one above 1023 with {flag}"
        return f"--host {self.host}: cannot listen there ({error.strerror or error})"
