"""Finds the cause if a server was not reached because of a certificate or a proxy.

Causes name settings, addresses and environment variables. They quote no text of a server, so they
may be logged.
"""

from __future__ import annotations

from typing import Final

from adprior_client._call.proxy import Proxy
from adprior_client.config import ClientConfig
from adprior_client.server_sources import Address

_CLOSED: Final = ("Socket closed", "Connection reset")
_CONNECTION: Final = ("failed to connect", "errors resolving", "no answer within", *_CLOSED)
"""Messages of gRPC, not of the server."""
_TLS_CAUSES: Final = {
    "certificate has expired": "the server's certificate has expired",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not from a trusted authority "
    "(tls_ca_file)",
    "Hostname Verification": "the server's certificate has another name (tls_server_name)",
    "security handshaker": "the client's certificate does not match its key "
    "(tls_certificate_file, tls_key_file)",
}
"""The cause for each part of a gRPC message; the first match is used."""


def find_cause(detail: str, address: Address, config: ClientConfig) -> str:
    """Return the cause why a server was not reached; empty if it is not known.

    Args:
        detail: The error message.
        address: The server's address.
        config: The client's settings.
    """
    if not any(part in detail for part in _CONNECTION):
        return ""
    causes = []
    if "failed to connect" in detail:
        causes.append(_certificate_cause(detail, config))
    proxies = [Proxy.of(url) for url in (address.url, address.named_url)]
    if config.use_proxy and (proxy := proxies[0]) is not None and None not in proxies:
        causes.append(
            f"it is reached through the proxy {proxy.address} ({proxy.variable}), which "
            "use_proxy=False or no_proxy turns off"
        )
    return "; ".join(filter(None, causes))


def _certificate_cause(detail: str, config: ClientConfig) -> str:
    if any(word in detail for word in _CLOSED):
        return _guess_why(config)
    if not config.is_secure:
        return ""
    return next((cause for part, cause in _TLS_CAUSES.items() if part in detail), "")


def _guess_why(config: ClientConfig) -> str:
    """Return the usual cause of a connection that the server closes at once."""
    if not config.is_secure:
        return "the server may require TLS (tls_ca_file)"
    if config.tls_certificate_file is None:
        return "the server may require a client certificate (tls_certificate_file)"
    return (
        "the server may not trust the client's certificate, or it has expired "
        "(tls_certificate_file)"
    )
