"""The server that is measured: started here on a repository, or running already at a URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import tritonclient.grpc

from adprior_bench.server.counters import Counters
from adprior_build.repository.repository_builder import fill_repository
from adprior_client import ClientConfig
from adprior_client.server_list import each_server
from adprior_client.server_sources import DnsName, join_host_port, source_of
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Bundle
from adprior_runtime.contract import LLM_ENGINE, TOKENIZER, Target
from adprior_runtime.engines.registry import TENSORRT_LLM
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.repository.checks.coherence import check_coherence
from adprior_runtime.repository.model_specs import ModelTuning
from adprior_runtime.repository.tuning import Tuning, read_tuning
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer

_CONNECTION_SETTINGS: Final = (
    "token", "token_file", "tls", "tls_ca_file", "tls_certificate_file", "tls_key_file", "metadata",
    "use_proxy",
)  # fmt: skip
_RESOLVED_WITHIN_S: Final = 10.0


class RunningServer:
    """A server and its counters; close it after use.

    With ``pid``, the CPU of that process and its descendants is read too.

    Raises:
        InvalidInputError: There is no such process.
    """

    def __init__(self, connection: ClientConfig, pid: int | None) -> None:
        self.connection = connection
        self._headers = dict(call_metadata(connection))
        self._client = tritonclient.grpc.InferenceServerClient(
            connection.urls[0],
            ssl=connection.is_secure,
            root_certificates=connection.tls_ca_file,
            private_key=connection.tls_key_file,
            certificate_chain=connection.tls_certificate_file,
        )
        try:
            self._process = None if pid is None else psutil.Process(pid)
        except psutil.NoSuchProcess as error:
            raise InvalidInputError(f"--server-pid {pid}: no such process") from error

    def read_engine_tuning(self) -> ModelTuning | None:
        """Return instances and threads of the engine; None for one that cannot run in-process."""
        config = self._call(self._client.get_model_config, LLM_ENGINE).config
        return read_tuning(LLM_ENGINE, config) if config.backend == "python" else None

    def read_counters(self) -> Counters:
        """Return the counters since the server's start."""
        return Counters.of(self._call(self._client.get_inference_statistics), self._process)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _call(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments, headers=self._headers, client_timeout=10)
        except tritonclient.grpc.InferenceServerException as error:
            (address,) = self.connection.urls
            raise EnvironmentProblemError(
                f"{address}: cannot read the server's configuration or statistics: "
                f"{error.message()}"
            ) from error


def read_connection(url: str, settings: Path | None) -> ClientConfig:
    """Return how to reach a server.

    Args:
        url: ``host:port`` of its gRPC, or a name or file with one server.
        settings: A client's TOML file; TLS, token, metadata and ``use_proxy`` are taken from it.

    Raises:
        InvalidInputError: perf_analyzer cannot connect that way, or there are several servers.
        UnavailableError: No server is known.
    """
    url = _only_address(url)
    if settings is None:
        return ClientConfig(urls=(url,))
    client = ClientConfig.from_toml(settings)
    if client.tls_server_name is not None:
        raise InvalidInputError(
            f"{settings}: found tls_server_name, which perf_analyzer cannot use: "
            "name the host in --url as its certificate does"
        )
    if client.is_secure and client.tls_ca_file is None:
        raise InvalidInputError(
            f"{settings}: found TLS without tls_ca_file, which perf_analyzer needs"
        )
    settings_of_url = {name: getattr(client, name) for name in _CONNECTION_SETTINGS}
    return ClientConfig(urls=(url,), **settings_of_url)


def _only_address(url: str) -> str:
    """Return ``host:port`` of the one server that a URL stands for; a DNS name stays a name."""
    servers = each_server(ClientConfig(urls=(url,), deadline_s=_RESOLVED_WITHIN_S))
    if len(servers) > 1:
        found = ", ".join(server.urls[0] for server in servers)
        raise InvalidInputError(f"--url {url}: found {len(servers)} servers ({found}), expected 1")
    if isinstance(source := source_of(url), DnsName):
        return join_host_port(source.name, source.port)
    return servers[0].urls[0]


def call_metadata(connection: ClientConfig) -> Mapping[str, str]:
    """Return the metadata of each call: the token, and the client's own."""
    return connection.token_metadata() | dict(connection.metadata)


def build_repository(bundle: Path, directory: Path, tuning: Tuning | None) -> Path:
    """Fill a new directory with the repository of a bundle, as ``adprior build`` does."""
    opened = Bundle.open(bundle)
    if opened.manifest.engine == TENSORRT_LLM.name:
        raise InvalidInputError(
            f"--bundle {bundle} is for {opened.manifest.engine}; give --url of its server"
        )
    check_coherence(opened)
    directory.mkdir(parents=True)
    fill_repository(directory, opened, None if tuning is None else {Target.CPU: tuning})
    return directory


def collect_bundle(repository: Path, directory: Path) -> Path:
    """Fill a directory with the bundle files of all models of a repository."""
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
def start_server(repository: Path) -> Iterator[RunningServer]:
    """Start tritonserver on free ports of the loopback; stop it at the end."""
    grpc_port, http_port, metrics_port = free_ports(3)
    with TritonServer.start(
        repository, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port
    ) as started:
        connection = ClientConfig(urls=(started.grpc_address,))
        with closing(RunningServer(connection, started.process.pid)) as server:
            yield server
