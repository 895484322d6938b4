"""How a given server is reached: by our clients, and by perf_analyzer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adprior_client import ClientConfig
from adprior_runtime.errors import InvalidInputError

_TAKEN: Final = (
    "token", "token_file", "tls", "tls_ca_file", "tls_certificate_file", "tls_key_file", "metadata",
    "use_proxy",
)  # fmt: skip


def read_connection(url: str, settings: Path | None) -> ClientConfig:
    """Return what reaches a server.

    Args:
        url: ``host:port`` of its gRPC.
        settings: A client's, TOML; TLS, token, metadata and ``use_proxy`` are taken from it.

    Raises:
        InvalidInputError: perf_analyzer cannot connect like that.
    """
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
    return ClientConfig(urls=(url,), **{name: getattr(client, name) for name in _TAKEN})


def sent_metadata(connection: ClientConfig) -> Mapping[str, str]:
    """Return what is sent with each call: the token, and the client's own."""
    return connection.token_metadata() | dict(connection.metadata)


def analyzer_options(connection: ClientConfig) -> list[str]:
    """Return perf_analyzer's options for a server; the metadata's values are secrets."""
    options = ["-u", connection.urls[0], "-i", "grpc"]
    if connection.is_secure:
        options += ["--ssl-grpc-use-ssl", "true"]
    for option, file in (
        ("root-certifications", connection.tls_ca_file),
        ("certificate-chain", connection.tls_certificate_file),
        ("private-key", connection.tls_key_file),
    ):
        options += [] if file is None else [f"--ssl-grpc-{option}-file", str(Path(file).resolve())]
    # Its help says that it sends these over HTTP only; it sends them over gRPC too.
    for name, value in sent_metadata(connection).items():
        options += ["-H", f"{name}:{value}"]
    return options
