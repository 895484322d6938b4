"""Why a server was not reached, as far as this side can know: a certificate, a proxy.

What these functions return names settings, addresses and variables of the environment. It quotes
nothing that a server said, so it may be logged.
"""

from __future__ import annotations

from typing import Final

from adprior_client._call.proxy import Proxy
from adprior_client.config import ClientConfig

_HUNG_UP: Final = ("Socket closed", "Connection reset")
_ON_THE_WAY: Final = ("failed to connect", "errors resolving", "no answer within", *_HUNG_UP)
"""The server itself said none of these."""
_SAID: Final = {
    "certificate has expired": "the server's certificate has expired",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is of no authority that we trust "
    "(tls_ca_file)",
    "Hostname Verification": "the server's certificate has another name (tls_server_name)",
    "security handshaker": "our certificate and its key do not go together "
    "(tls_certificate_file, tls_key_file)",
}
"""By a part of what gRPC says; the first one that is found counts."""


def find_cause(detail: str, url: str, config: ClientConfig) -> str:
    """Return what is known of why a server was not reached, empty where nothing is.

    Args:
        detail: What came instead of an answer.
        url: The server's.
        config: The client's.
    """
    if not any(part in detail for part in _ON_THE_WAY):
        return ""
    causes = []
    if "failed to connect" in detail:
        causes.append(_certificate_cause(detail, config))
    if config.use_proxy and (proxy := Proxy.of(url)) is not None:
        causes.append(
            f"it is asked through the proxy {proxy.address} ({proxy.variable}), which "
            "use_proxy=False or no_proxy turns off"
        )
    return "; ".join(filter(None, causes))


def _certificate_cause(detail: str, config: ClientConfig) -> str:
    if any(word in detail for word in _HUNG_UP):
        return _guess_why(config)
    if not config.is_secure:
        return ""
    return next((cause for part, cause in _SAID.items() if part in detail), "")


def _guess_why(config: ClientConfig) -> str:
    """Return what a server usually has against a client that it hangs up on."""
    if not config.is_secure:
        return "the server may want TLS (tls_ca_file)"
    if config.tls_certificate_file is None:
        return "the server may want a certificate of ours (tls_certificate_file)"
    return "the server may not trust our certificate, or it has expired (tls_certificate_file)"
