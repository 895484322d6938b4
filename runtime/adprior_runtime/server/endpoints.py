"""The addresses and ports of a server, and checks of ports, plain text and readiness."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from adprior_runtime.errors import InvalidInputError

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

_READY_TIMEOUT_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The addresses and ports of gRPC, HTTP and metrics.

    Callers use gRPC. HTTP and metrics cannot be encrypted. In the embedded server, a single large
    request can stop either of them (docs/security.md). So both should stay on this machine.
    """

    host: str = "127.0.0.1"
    http_host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
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

    @property
    def hosts(self) -> dict[str, str]:
        """Each address by the flag of ``adprior serve`` that sets it, in the order of `ports`."""
        return {
            "--host": self.host,
            "--http-host": self.http_host,
            "--metrics-host": self.metrics_host,
        }

    @property
    def grpc_address(self) -> str:
        """``host:port`` for gRPC clients on this machine."""
        return join_address(self.host, self.grpc_port)

    @property
    def http_address(self) -> str:
        """``host:port`` for HTTP clients on this machine."""
        return join_address(self.http_host, self.http_port)

    @property
    def metrics_address(self) -> str:
        """``host:port`` where Prometheus finds ``/metrics`` on this machine."""
        return join_address(self.metrics_host, self.metrics_port)

    def is_ready(self) -> bool:
        """Whether the server that listens here reports that it is ready."""
        host = local_host(self.http_host)
        connection = http.client.HTTPConnection(host, self.http_port, timeout=_READY_TIMEOUT_S)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status != http.HTTPStatus.OK:
                return False
            # The metrics port opens last of the three.
            address = (local_host(self.metrics_host), self.metrics_port)
            with socket.create_connection(address, timeout=_READY_TIMEOUT_S):
                return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def require_closed(self, *, has_tls: bool) -> None:
        """Raise InvalidInputError if other machines could call in plain text.

        Args:
            has_tls: Whether gRPC is encrypted.
        """
        for flag, host in self.hosts.items():
            if is_loopback(host) or (flag == "--host" and has_tls):
                continue
            remedy = "give --tls-cert and --tls-key, or " if flag == "--host" else ""
            raise InvalidInputError(
                f"{flag} {host}: other machines would call it in plain text; {remedy}"
                "add --insecure only if that network is trusted or encrypted"
            )

    def check_free(self) -> None:
        """Raise InvalidInputError, naming the flag to change, unless every port can be bound."""
        hosts = zip(self.ports.items(), self.hosts.items(), strict=True)
        for (flag, port), (host_flag, host) in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    reason = explain_bind(error, f"{host_flag} {host}", host, flag, port)
                    raise InvalidInputError(reason) from error


def local_host(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on ``host``."""
    return _LOOPBACK.get(host, host)


def join_address(host: str, port: int) -> str:
    """Return ``host:port`` at which this machine reaches a server."""
    host = local_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name
        return host == "localhost"


def explain_bind(error: OSError, place: str, host: str, flag: str, port: int) -> str:
    """Return why a port cannot be bound, naming the flag to change.

    Args:
        error: What binding raised.
        place: The host as the user gave it.
        host: The address.
        flag: The option of the port.
        port: The port.
    """
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with {flag}"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023 with {flag}"
    return f"{place}: cannot listen there ({error.strerror or error})"


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports of the loopback address that are free at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
