"""Where a client finds its servers: an address, a DNS name, or a file of addresses.

===================  ==============================================================================
``HOST:PORT``        one server
``dns:///NAME:PORT`` a server at every address of the name (A and AAAA)
``file:///PATH``     a server for each line of the file; ``#`` begins a comment
===================  ==============================================================================

A line of a file is ``HOST:PORT``, or ``HOST:PORT canary=SHARE`` for a server that only this share
of the users asks, such as ``10.0.1.1:8001 canary=0.05``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote

from adprior_client.errors import InvalidArgumentError, UnavailableError

_DNS: Final = "dns:///"
_FILE: Final = "file://"
_EXPECTED: Final = "expected HOST:PORT, dns:///NAME:PORT or file:///PATH"
_CANARY: Final = re.compile(r"(\S+)[ \t]+canary=(0(?:\.[0-9]{1,9})?|1(?:\.0{1,9})?)")
_LINE: Final = "HOST:PORT or HOST:PORT canary=SHARE, a share from 0 to 1"
_MOST_BYTES: Final = 1 << 20
"""A longer file is refused: it is no list of servers."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One server's address.

    Attributes:
        url: ``HOST:PORT``; an IPv6 address is in brackets.
        name: The DNS name that the address was found under; empty if ``url`` was given itself.
            Certificates and exemptions from the proxy hold for the name.
        canary_share: The share of the users who ask this server; None for all users. Addresses
            that differ in it alone are equal: it is the same server.
    """

    url: str
    name: str = ""
    canary_share: float | None = field(default=None, compare=False)

    @property
    def line(self) -> str:
        """The address as a line of a file."""
        if self.canary_share is None:
            return self.url
        return f"{self.url} canary={f'{self.canary_share:.9f}'.rstrip('0').rstrip('.')}"

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
    """Servers listed in a file, one a line."""

    url: str
    path: Path

    def read(self) -> tuple[Address, ...]:
        """Read the file; the addresses are sorted.

        Raises:
            UnavailableError: The file is unreadable, lists no server, or only canaries, or a line
                is malformed: then none of its lines is used.
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
        try:
            return parse_lines(text)
        except ValueError as error:
            raise UnavailableError(f"{self.url}: {error}") from error


def parse_lines(text: str) -> tuple[Address, ...]:
    """Return the servers that a file's text lists, sorted, each once.

    Raises:
        ValueError: A line is malformed, a server is listed in two ways, there is no server, or none
            for the users who ask no canary.
    """
    found: dict[Address, Address] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (entry := line.partition("#")[0].strip()):
            continue
        if (address := parse_line(entry)) is None:
            raise ValueError(f"line {number}: found {entry[:80]!r}, expected {_LINE}")
        before = found.setdefault(address, address)
        if before.canary_share != address.canary_share:
            raise ValueError(f"line {number}: {address.url} is listed before, with another share")
    if not found:
        raise ValueError("lists no server")
    if all(address.canary_share is not None for address in found):
        raise ValueError("lists only canaries, expected a server without canary=")
    return tuple(sorted(found))


def parse_line(entry: str) -> Address | None:
    """Return the server that a line without comment lists; None if it is malformed."""
    if is_address(entry):
        return Address(entry)
    canary = _CANARY.fullmatch(entry)
    if canary is None or not is_address(canary[1]):
        return None
    return Address(canary[1], canary_share=float(canary[2]))


def shares_of(addresses: Iterable[Address]) -> list[tuple[Address, float | None]]:
    """Return addresses with their shares, to compare both."""
    return [(address, address.canary_share) for address in addresses]


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
        if is_address(place) and 0 < int(port) < 1 << 16:
            return DnsName(text, host.strip("[]"), int(port))
    elif text.startswith(_FILE):
        path = Path(unquote(text.removeprefix(_FILE)))
        if path.is_absolute() and "\0" not in str(path):
            return ServerFile(text, path)
    elif is_address(text):
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


def is_address(text: str) -> bool:
    """Return whether a text is ``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and not any(c == "/" or c.isspace() for c in text)
