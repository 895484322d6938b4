"""The proxy that gRPC uses, by the rules with which gRPC reads the environment.

It uses the first of ``grpc_proxy``, ``https_proxy`` and ``http_proxy`` (lower case only), unless
the first of ``no_grpc_proxy`` and ``no_proxy`` names the server. An address that does not begin
with ``http://`` is ignored.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from adprior_client.config import PROXY_VARIABLES

_EXEMPTIONS: Final = ("no_grpc_proxy", "no_proxy")
_ADDRESS: Final = re.compile(r"http://(?:[^/?#]*@)?([^/?#@]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that gRPC uses.

    Attributes:
        address: Its address, without user name and password.
        variable: The environment variable that names it.
    """

    address: str
    variable: str

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str] = os.environ) -> Self | None:
        """Return the proxy for a server's ``HOST:PORT``, None if no proxy is used."""
        variable = next((name for name in PROXY_VARIABLES if environ.get(name)), None)
        if variable is None or is_loopback(url) or _is_exempt(_host(url), environ):
            return None
        found = _ADDRESS.match(environ[variable])
        return None if found is None else cls(found[1], variable)


def is_loopback(url: str) -> bool:
    """Return whether a server is on this machine, by its ``HOST:PORT``."""
    host = _host(url)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _host(url: str) -> str:
    """Return the host of ``HOST:PORT``, without gRPC's prefix (``dns:``, ``ipv4:`` ...)."""
    host = url.rpartition(":")[0]
    for prefix in ("dns:", "ipv4:", "ipv6:"):
        host = host.removeprefix(prefix)
    return host.strip("[]").rstrip(".").lower()


def _is_exempt(host: str, environ: Mapping[str, str]) -> bool:
    listed = next((environ[name] for name in _EXEMPTIONS if environ.get(name)), "")
    entries = [entry.strip().lower() for entry in listed.split(",")]
    return any(_matches(host, entry) for entry in entries if entry)


def _matches(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        return host.endswith(entry)
