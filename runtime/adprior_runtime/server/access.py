"""Access to the server: TLS and tokens, as tritonserver's flags.

::

    group of calls                                   callers
    model-repository, shared-memory, trace, logging  those with the admin token
    inference, metadata, model-config, statistics    those with the inference token, if there is one
    health                                           everyone

With TLS, inference over HTTP is closed to everyone, because HTTP cannot be encrypted.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adprior_runtime.contract import ADMIN_KEY, INFERENCE_KEY
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import read_token
from adprior_runtime.server.tls import ServerTls

_ADMIN: Final = "model-repository,shared-memory,trace,logging"
_INFERENCE: Final = "inference,metadata,model-config,statistics"
_CLOSED_KEY: Final = "closed"


def _secret_token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The tokens and certificates that callers need; by default, nobody can change the server.

    Attributes:
        tls: The TLS files of gRPC; None for plain text.
        admin_token: The token for calls that change the server; by default a random secret.
        inference_token: The token for all calls except health; empty for none.

    Raises:
        InvalidInputError: Both tokens are the same.
    """

    tls: ServerTls | None = None
    admin_token: str = field(default_factory=_secret_token, repr=False)
    inference_token: str = field(default="", repr=False)
    _closed_token: str = field(default_factory=_secret_token, repr=False)

    def __post_init__(self) -> None:
        """Refuse the same token for both kinds of callers."""
        if self.admin_token == self.inference_token:
            raise InvalidInputError(
                "the admin and the inference token are the same: every caller could administer"
            )

    @classmethod
    def of_files(
        cls,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        client_ca: Path | None = None,
        admin_token: Path | None = None,
        inference_token: Path | None = None,
    ) -> Access:
        """Read an operator's files; `ServerTls` and `read_token` say which files are refused.

        Raises:
            InvalidInputError: A file is wrong, or a file for TLS is missing.
        """
        if (certificate is None) != (key is None) or (client_ca and certificate is None):
            raise InvalidInputError(
                "TLS needs --tls-cert and --tls-key together; --tls-client-ca is for use with both"
            )
        tls = None
        if certificate is not None and key is not None:
            tls = ServerTls(
                certificate=certificate.absolute(),
                key=key.absolute(),
                client_ca=None if client_ca is None else client_ca.absolute(),
            )
        return cls(
            tls=tls,
            admin_token=_secret_token() if admin_token is None else read_token(admin_token),
            inference_token="" if inference_token is None else read_token(inference_token),
        )

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token in the flags."""
        return tuple(filter(None, (self.admin_token, self.inference_token, self._closed_token)))

    def flags(self) -> list[str]:
        """Return tritonserver's flags."""
        admin = f"{_ADMIN}:{ADMIN_KEY}={self.admin_token}"
        inference = f"{_INFERENCE}:{INFERENCE_KEY}={self.inference_token}"
        grpc, http = [admin], [admin]
        if self.inference_token:
            grpc.append(inference)
        if self.tls is not None:
            http.append(f"{_INFERENCE}:{_CLOSED_KEY}={self._closed_token}")
        elif self.inference_token:
            http.append(inference)
        return [
            *(f"--grpc-restricted-protocol={restricted}" for restricted in grpc),
            *(f"--http-restricted-api={restricted}" for restricted in http),
            *(() if self.tls is None else self.tls.flags()),
        ]
