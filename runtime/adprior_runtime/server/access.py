"""Who may ask the server what: TLS and tokens, as tritonserver's flags.

::

    group of calls                                   who
    model-repository, shared-memory, trace, logging  who has the admin token
    inference, metadata, model-config, statistics    who has the inference token, if there is one
    health                                           everyone

With TLS, nobody infers over HTTP, which cannot be encrypted: gRPC is the only way in.
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


def _nobodys_token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What callers must present; by default, what changes the server is for nobody.

    Attributes:
        tls: Of gRPC; None is plain text.
        admin_token: For what changes the server; by default one that nobody is told.
        inference_token: For everything but health; empty asks for none.

    Raises:
        InvalidInputError: Both tokens are the same.
    """

    tls: ServerTls | None = None
    admin_token: str = field(default_factory=_nobodys_token, repr=False)
    inference_token: str = field(default="", repr=False)
    _closed_token: str = field(default_factory=_nobodys_token, repr=False)

    def __post_init__(self) -> None:
        """Keep the two kinds of callers apart."""
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
        """Read what an operator gives; see `ServerTls` and `read_token` for what is refused.

        Raises:
            InvalidInputError: A file is wrong, or one of those for TLS is missing.
        """
        if (certificate is None) != (key is None) or (client_ca and certificate is None):
            raise InvalidInputError(
                "TLS takes --tls-cert and --tls-key together, and --tls-client-ca only beside them"
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
            admin_token=_nobodys_token() if admin_token is None else read_token(admin_token),
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
