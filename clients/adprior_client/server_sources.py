"""Where a client finds its servers: an address, a DNS name, or a file of addresses.

===================  ==============================================================================
``HOST:PORT``        one server
``dns:///NAME:PORT`` a server at every address of the name (A and AAAA)
``file:///PATH``     a server for each line of the file; ``#`` begins a comment
===================  ==============================================================================
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote

from adprior_client.errors import InvalidArgumentError, UnavailableError

_DNS: Final = "dns:///"
_FILE: Final = "file://"
_EXPECTED: Final = "expected HOST:PORT, dns:///NAME:PORT or file:///PATH"
_MOST_BYTES: Final = 1 << 20
"""A longer file is refused: it is no list of servers."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One server's address.

    Attributes:
        url: ``HOST:PORT``; an IPv6 address is in brackets.
        name: The DNS name that the address was found under; empty if ``url`` was given itself.
            Certificates and exemptions from the proxy hold for the name.
    """

    url: str
    name: str = ""

    @property
    def named_url(self) -> str:
        """``HOST:PORT`` with the name in place of the address."""
        return f"{self.name}:{self.url.rpartition(':')[2]}" if self.name else self.url


@dataclass(frozen=True, slots=True)
class FixedServer:
    """One server whose address is given."""

    url: str

    def read(self) -> tuple[Address, ...]:
        """Return the address."""
        return (Address(self.url),)


@dataclass(frozen=True, slots=True)
class DnsName:
    """Servers at all addresses of a name, with one port."""

    url: str
    name: str
    port: int

    def read(self) -> tuple[Address, ...]:
        """Ask the system's resolver, which may take many seconds; the addresses are sorted.

        Raises:
            UnavailableError: The resolver fails, or knows no address.
        """
        try:
            hosts = look_up(self.name, self.port)
        except (OSError, UnicodeError) as error:  # a label of more than 63 characters
            reason = getattr(error, "strerror", None) or str(error)
            raise UnavailableError(f"{self.url}: {reason}") from error
        if not hosts:
            raise UnavailableError(f"{self.url}: no address")
        name = self.name.rstrip(".")
        return tuple(sorted({Address(join_host_port(host, self.port), name) for host in hosts}))


@dataclass(frozen=True, slots=True)
class ServerFile:
    """Servers listed in a file, one ``HOST:PORT`` a line."""

    url: str
    path: Path

    def read(self) -> tuple[Address, ...]:
        """Read the file; the addresses are sorted.

        Raises:
            UnavailableError: The file is unreadable, lists no server, or a line is malformed: then
                none of its lines is used.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1).decode("utf-8-sig")
        except OSError as error:
            raise UnavailableError(f"{self.url}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UnavailableError(f"{self.url}: not UTF-8") from error
        if len(text) > _MOST_BYTES:
            raise UnavailableError(f"{self.url}: longer than {_MOST_BYTES:,} bytes")
        found = set()
        for number, line in enumerate(text.splitlines(), start=1):
            address = line.partition("#")[0].strip()
            if address and not _is_address(address):
                raise UnavailableError(
                    f"{self.url}: line {number}: found {address[:80]!r}, expected HOST:PORT"
                )
            if address:
                found.add(Address(address))
        if not found:
            raise UnavailableError(f"{self.url}: lists no server")
        return tuple(sorted(found))


ServerSource: TypeAlias = FixedServer | DnsName | ServerFile


def source_of(url: object) -> ServerSource:
    """Return the source that one of a client's ``urls`` names.

    Raises:
        InvalidArgumentError: It has none of the forms.
    """
    text = url if isinstance(url, str) else ""
    if text.startswith(_DNS):
        place = text.removeprefix(_DNS)
        host, _, port = place.rpartition(":")
        if _is_address(place) and 0 < int(port) < 1 << 16:
            return DnsName(text, host.strip("[]"), int(port))
    elif text.startswith(_FILE):
        path = Path(unquote(text.removeprefix(_FILE)))
        if path.is_absolute() and "\0" not in str(path):
            return ServerFile(text, path)
    elif _is_address(text):
        return FixedServer(text)
    raise InvalidArgumentError(f"url: found {url!r}, {_EXPECTED}")


def look_up(name: str, port: int) -> list[str]:
    """Return every address of a name: the one place where names are resolved.

    `socket.getaddrinfo` knows ``/etc/hosts``, search domains and Kubernetes' headless Services. It
    leaves out addresses of a family (IPv4 or IPv6) that this machine does not have.

    Raises:
        OSError: The resolver does not know the name, or fails.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for *_, address in found]


def join_host_port(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and not any(c == "/" or c.isspace() for c in text)
