"""The server's TLS files: its certificate and key, and the authority of its callers' certificates.

tritonserver reads the files once, when it starts. With a wrong file it still starts, but no caller
can connect. So a handshake in memory tests the files first.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Never

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.file_modes import check_private

_ROUNDS: Final = 8
"""More rounds than any handshake takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files that passed the test.

    Attributes:
        certificate: The server's chain, its own certificate first.
        key: Its private key, without a passphrase.
        client_ca: Authorities of the callers' certificates (mutual TLS); None accepts every caller.

    Raises:
        InvalidInputError: A file is missing, not PEM, not private or expired, or certificate and
            key do not belong together.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        """Test the files."""
        for path in (self.certificate, self.key, *filter(None, [self.client_ca])):
            if not path.is_file():
                raise InvalidInputError(f"{path}: no such file")
        check_private(self.key)
        _check_pair(self.certificate, self.key)
        if self.client_ca is not None:
            _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.client_ca)

    def flags(self) -> list[str]:
        """Return tritonserver's flags, which apply to gRPC only."""
        files = [f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca is None:
            return ["--grpc-use-ssl=true", *files]
        return ["--grpc-use-ssl-mutual=true", *files, f"--grpc-root-cert={self.client_ca}"]


def _check_pair(certificate: Path, key: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=_refuse_passphrase)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"{certificate} and {key}: not a certificate and its key in PEM ({_reason(error)})"
        ) from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # the names that callers use are not known here
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_authorities(client, certificate)
    try:
        _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        raise InvalidInputError(
            f"{certificate}: callers would refuse it: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise InvalidInputError(f"{certificate}: no handshake with it: {_reason(error)}") from error


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Run the handshake of a server and a client in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(_ROUNDS):
        waiting = []
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(end)
        if not waiting:
            return
        ends = waiting


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(f"{path}: no certificates in PEM ({_reason(error)})") from error


def _refuse_passphrase() -> Never:
    raise OSError("the key has a passphrase, which tritonserver cannot ask for")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")
