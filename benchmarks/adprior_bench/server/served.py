"""The server under load: one of our own on a repository, or one that is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adprior_bench.server.server_work import Server
from adprior_build.repository.bundle_builder import check_coherence, link_or_copy
from adprior_build.repository.repository_builder import fill_repository
from adprior_build.repository.server_tuning import Tuning
from adprior_client import ClientConfig
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Bundle
from adprior_runtime.contract import LLM_ENGINE, TOKENIZER
from adprior_runtime.engines.registry import TENSORRT_LLM
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.model_specs import Scaling
from adprior_runtime.repository.scaling import read_scaling
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server and what it serves.

    Attributes:
        server: To be asked and looked at.
        bundle: A directory with the files that its models need.
        engine: The engine's scaling; None for one that does not run in-process.
    """

    server: Server
    bundle: Path
    engine: Scaling | None


def build_repository(bundle: Path, directory: Path, tuning: Tuning | None) -> Path:
    """Fill an empty directory with the repository of a bundle, as ``adprior build`` does."""
    opened = Bundle.open(bundle)
    if opened.engine == TENSORRT_LLM.name:
        raise InvalidInputError(
            f"--bundle {bundle} is for {opened.engine}; give --url of its server"
        )
    check_coherence(opened)
    directory.mkdir(parents=True)
    fill_repository(directory, opened, tuning)
    return directory


def collect_bundle(repository: Path, directory: Path) -> Path:
    """Fill a directory with what the models of a repository hold, one manifest for all."""
    if not (repository / TOKENIZER / "1" / "bundle" / MANIFEST).is_file():
        raise InvalidInputError(f"{repository}: not a model repository that `adprior build` made")
    for name in MODEL_FILES:
        source = repository / name / "1" / "bundle"
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            target = directory / file.relative_to(source)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(file, target)
    return directory


@contextmanager
def serve_repository(repository: Path, bundle: Path) -> Iterator[Served]:
    """Start tritonserver on free ports of the loopback and stop it afterwards."""
    grpc_port, http_port, metrics_port = free_ports(3)
    with TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    ) as running:
        connection = ClientConfig(urls=(running.grpc_address,))
        yield from _look_at(connection, running.process.pid, bundle)


@contextmanager
def adopt_server(connection: ClientConfig, pid: int | None, bundle: Path) -> Iterator[Served]:
    """Use a server that runs already; its CPU is measured where ``pid`` is given."""
    yield from _look_at(connection, pid, bundle)


def _look_at(connection: ClientConfig, pid: int | None, bundle: Path) -> Iterator[Served]:
    server = Server(connection, pid)
    try:
        config = server.config(LLM_ENGINE)
        is_ours = config.backend == "python"
        engine = read_scaling(LLM_ENGINE, config) if is_ours else None
        yield Served(server=server, bundle=bundle, engine=engine)
    finally:
        server.close()
