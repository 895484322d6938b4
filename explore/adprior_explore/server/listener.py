"""Listens for browsers: the socket, TLS, and uvicorn."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import check_private
from adprior_runtime.server.endpoints import explain_bind, is_loopback, join_address

_MOST_PORT: Final = 65535
_LAST_ANSWERS_S: Final = 1
"""Time for answers under way when the command ends; then they are cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the page is served.

    Attributes:
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        certificate: PEM chain for TLS; None for plain HTTP.
        key: Its private key.
        insecure: Whether plain HTTP beyond loopback is wanted.
        has_token: Whether the page asks for a token.

    Raises:
        InvalidInputError: Other machines could open the page without a token or in plain text, or
            an option is wrong.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    has_token: bool = False

    def __post_init__(self) -> None:
        """Refuse what would show users to the network."""
        if not 0 <= self.port <= _MOST_PORT:
            raise InvalidInputError(f"--port: {self.port}, expected 0 to {_MOST_PORT}")
        if (self.certificate is None) != (self.key is None):
            raise InvalidInputError("--page-cert and --page-key go together")
        if is_loopback(self.host):
            return
        if not self.has_token:
            raise InvalidInputError(
                f"--host {self.host}: other machines could open the page; give --page-token-file"
            )
        if self.certificate is None and not self.insecure:
            raise InvalidInputError(
                f"--host {self.host}: users would cross the network in plain text; give "
                "--page-cert and --page-key, or add --insecure only if that network is trusted or "
                "encrypted"
            )

    @property
    def is_secure(self) -> bool:
        """Whether browsers use TLS."""
        return self.certificate is not None

    def bind(self) -> socket.socket:
        """Return a socket that listens.

        Raises:
            InvalidInputError: The address or the port cannot be used.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            place = f"--host {self.host}"
            reason = explain_bind(error, place, self.host, "--port", self.port)
            raise InvalidInputError(reason) from error

    def url(self, bound: socket.socket) -> str:
        """Return the page's address for a browser on this machine."""
        address = join_address(self.host, bound.getsockname()[1])
        return f"{'https' if self.is_secure else 'http'}://{address}/"

    def prepare(self, app: ASGIApp) -> uvicorn.Server:
        """Return the server of an application; its ``run`` ends at SIGINT or SIGTERM.

        Raises:
            InvalidInputError: The certificate or its key is unusable.
        """
        if self.key is not None:
            check_private(self.key)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ssl_certfile=self.certificate,
            ssl_keyfile=None if self.key is None else str(self.key),
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
        try:
            config.load()
        except OSError as error:  # an SSLError is one
            raise InvalidInputError(
                f"--page-cert {self.certificate}: no PEM certificate chain with this key: "
                f"{error.strerror or error}"
            ) from error
        return uvicorn.Server(config)
