"""Where faults happen: a node, what stands between it and its clients, and how clients reach it."""

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
from faults.node import Node
from faults.proxy import Proxy

_HEADER = f"{GRPC_KEY_PREFIX}{INFERENCE_KEY}"


class Kind(StrEnum):
    """How a node is reached."""

    PLAIN = "plain"
    PROXY = "proxy"
    TLS = "tls"
    TOKEN = "token"


@dataclass(slots=True, kw_only=True)
class Token:
    """What a client sends to be let in; a function that rotates, as a service has."""

    right: str = field(default_factory=secrets.token_hex)
    sent: str | None = None

    def metadata(self) -> Mapping[str, str]:
        """What goes along with each call."""
        return {} if self.sent is None else {_HEADER: self.sent}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node with what a kind of fault needs.

    Attributes:
        config: Of a client that can reach the node.
        client: What the client is made with besides.
    """

    node: Node
    config: ClientConfig
    client: dict[str, Any] = field(default_factory=dict)
    proxy: Proxy | None = None
    certificates: Certificates | None = None
    token: Token | None = None


@contextmanager
def open_site(kind: Kind, repository: Path, directory: Path) -> Iterator[Site]:
    """Start a node of that kind; ``directory`` is for files of its own."""
    if kind is Kind.TLS:
        certificates = Certificates(directory)
        with Node(repository, flags=certificates.flags) as node:
            config = certificates.client_config(node.url)
            yield Site(node=node, config=config, certificates=certificates)
    elif kind is Kind.TOKEN:
        token = Token()
        token.sent = token.right
        file = directory / "token"
        file.touch(mode=0o600)
        file.write_text(token.right)
        with Node(repository, ["--inference-token-file", str(file)]) as node:
            config = ClientConfig(urls=(node.url,))
            yield Site(node=node, config=config, client={"metadata": token.metadata}, token=token)
    elif kind is Kind.PROXY:
        with Node(repository) as node, Proxy(node.url) as proxy:
            yield Site(node=node, config=ClientConfig(urls=(proxy.url,)), proxy=proxy)
    else:
        with Node(repository) as node:
            yield Site(node=node, config=ClientConfig(urls=(node.url,)))
