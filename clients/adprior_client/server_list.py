"""The servers that a client's ``urls`` stand for now, one by one."""

from __future__ import annotations

from concurrent import futures
from dataclasses import replace
from typing import Any

from adprior_client._call.discovery import Discovery
from adprior_client._call.proxy import Proxy
from adprior_client.config import ClientConfig
from adprior_client.errors import UnavailableError
from adprior_client.server_sources import Address


def each_server(config: ClientConfig) -> list[ClientConfig]:
    """Return the settings of a client for each server that there is now.

    Names are resolved and files read once, within ``deadline_s``.

    Raises:
        UnavailableError: No server is known by then.
    """
    discovery = Discovery(config, lambda: None)
    discovery.start()
    futures.wait([discovery.complete], config.deadline_s)
    discovery.close()
    if not discovery.servers:
        raise UnavailableError(f"no server is known: {discovery.problem}")
    return [_config_of(config, address) for address in discovery.servers]


def _config_of(config: ClientConfig, address: Address) -> ClientConfig:
    """Return the settings for one server; its DNS name holds for certificates and the proxy."""
    changes: dict[str, Any] = {"urls": (address.url,)}
    if address.name and config.is_secure and config.tls_server_name is None:
        changes["tls_server_name"] = address.name
    if address.name and Proxy.of(address.named_url) is None:
        changes["use_proxy"] = False
    return replace(config, **changes)
