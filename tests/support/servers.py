"""Real tritonservers on free ports, with clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adprior_client import ClientConfig, RankingClient, RetrievalClient
from adprior_runtime.cli import main
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server, and clients that raise every failure."""

    server: TritonServer
    retrieval: RetrievalClient
    ranking: RankingClient


class KilledServer(TritonServer):
    """A server that is killed at its end: Triton waits for five seconds before it stops."""

    def stop(self, timeout_s: float = 5) -> None:
        self.kill()
        super().stop(timeout_s)


def choose_ports() -> dict[str, Any]:
    """Return free ports as arguments of `TritonServer.start`."""
    return dict(zip(("grpc_port", "http_port", "metrics_port"), free_ports(3), strict=True))


def port_options(ports: Mapping[str, int]) -> list[str]:
    """Return ports as options of `adprior serve`."""
    return [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]


def start_server(repository: Path, **options: Any) -> TritonServer:
    """Start a server, on free ports by default, that is killed at its end."""
    return KilledServer.start(repository, **(choose_ports() | options))


@contextmanager
def connect(address: str, **settings: Any) -> Iterator[tuple[RetrievalClient, RankingClient]]:
    """Open clients that wait for a busy machine and raise every failure."""
    config = ClientConfig(urls=(address,), **({"deadline_s": 60, "fail_open": False} | settings))
    with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
        yield retrieval, ranking


@contextmanager
def serve(server: TritonServer) -> Iterator[Served]:
    """Connect to a server that has just started, and stop it at the end."""
    with server, connect(server.grpc_address) as (retrieval, ranking):
        yield Served(server=server, retrieval=retrieval, ranking=ranking)


def build_repository(bundle: Path, repository: Path, *options: str) -> Path:
    """Run `adprior build` on a bundle, and return the repository."""
    build = ["build", "--bundle", str(bundle), "--output", str(repository)]
    assert main([*build, *options]) == 0
    return repository
