"""Certificates for a server and its clients: good, expired, and of an unknown authority."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from adprior_client import ClientConfig


class Certificates:
    """The files of a server with mTLS in a directory, which can be exchanged."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        known, unknown = trustme.CA(), trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self._write("good", known.issue_cert("localhost"))
        self._write("expired", known.issue_cert("localhost", not_after=yesterday))
        self._write("unknown", unknown.issue_cert("localhost"))
        self._write("client", known.issue_cert("ads.example"))
        known.cert_pem.write_to_path(directory / "known-authority.pem")
        unknown.cert_pem.write_to_path(directory / "unknown-authority.pem")
        self.use(shown="good", trusted="known-authority")

    def use(self, *, shown: str, trusted: str) -> None:
        """Set the certificate that the next start shows, and the authority that it trusts."""
        for kind in ("key", "chain"):
            shutil.copy(self._path(f"{shown}-{kind}"), self._path(f"server-{kind}"))
        shutil.copy(self._path(trusted), self._path("trusted"))

    @property
    def flags(self) -> list[str]:
        """Tritonserver's flags for mTLS."""
        return [
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={self._path('server-chain')}",
            f"--grpc-server-key={self._path('server-key')}",
            f"--grpc-root-cert={self._path('trusted')}",
        ]

    def client_config(self, url: str) -> ClientConfig:
        """Return the settings of a client with a good certificate."""
        return ClientConfig(
            urls=(url,),
            tls_ca_file=str(self._path("known-authority")),
            tls_certificate_file=str(self._path("client-chain")),
            tls_key_file=str(self._path("client-key")),
        )

    def _write(self, name: str, certificate: trustme.LeafCert) -> None:
        certificate.private_key_pem.write_to_path(self._path(f"{name}-key"))
        self._path(f"{name}-key").chmod(0o600)  # clients refuse a key that others can read
        certificate.cert_chain_pems[0].write_to_path(self._path(f"{name}-chain"))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pem"
