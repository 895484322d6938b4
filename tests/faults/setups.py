"""Setups for faults: a server, what is between it and its clients, the clients' settings."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from adprior_client import ClientConfig
from adprior_runtime.contract import GRPC_KEY_PREFIX, INFERENCE_KEY
from faults.certificates import Certificates
from faults.proxy import Proxy
from faults.supervised_server import SupervisedServer

_HEADER = f"{GRPC_KEY_PREFIX}{INFERENCE_KEY}"


class Kind(StrEnum):
    """The way in which clients reach the server."""

    PLAIN = "plain"
    PROXY = "proxy"
    TLS = "tls"
    TOKEN = "token"


@dataclass(slots=True, kw_only=True)
class Token:
    """The right token, and the one that the client sends with each call."""

    right: str = field(default_factory=secrets.token_hex)
    sent: str | None = None

    def metadata(self) -> Mapping[str, str]:
        """Return the metadata of a call."""
        return {} if self.sent is None else {_HEADER: self.sent}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A server, and what a kind of fault needs.

    Attributes:
        config: Settings of a client that can reach the server.
        client: Further arguments of the client.
    """

    server: SupervisedServer
    config: ClientConfig
    client: dict[str, Any] = field(default_factory=dict)
    proxy: Proxy | None = None
    certificates: Certificates | None = None
    token: Token | None = None


@contextmanager
def open_setup(kind: Kind, repository: Path, directory: Path) -> Iterator[Setup]:
    """Start a server of that kind; ``directory`` is for its files."""
    if kind is Kind.TLS:
        certificates = Certificates(directory)
        with SupervisedServer(repository, flags=certificates.flags) as server:
            config = certificates.client_config(server.url)
            yield Setup(server=server, config=config, certificates=certificates)
    elif kind is Kind.TOKEN:
        token = Token()
        token.sent = token.right
        file = directory / "token"
        file.touch(mode=0o600)
        file.write_text(token.right)
        with SupervisedServer(repository, ["--inference-token-file", str(file)]) as server:
            config, client = ClientConfig(urls=(server.url,)), {"metadata": token.metadata}
            yield Setup(server=server, config=config, client=client, token=token)
    elif kind is Kind.PROXY:
        with SupervisedServer(repository) as server, Proxy(server.url) as proxy:
            yield Setup(server=server, config=ClientConfig(urls=(proxy.url,)), proxy=proxy)
    else:
        with SupervisedServer(repository) as server:
            yield Setup(server=server, config=ClientConfig(urls=(server.url,)))
