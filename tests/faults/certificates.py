"""Throw-away certificates for a server and its clients: good, expired, and a stranger's."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from adprior_client import ClientConfig


class Certificates:
    """What a server with mTLS reads, in files that can be exchanged below it.

    Args:
        directory: Where to write them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ours, stranger = trustme.CA(), trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self._write("good", ours.issue_cert("localhost"))
        self._write("expired", ours.issue_cert("localhost", not_after=yesterday))
        self._write("strangers", stranger.issue_cert("localhost"))
        self._write("client", ours.issue_cert("ads.example"))
        ours.cert_pem.write_to_path(directory / "ours.pem")
        stranger.cert_pem.write_to_path(directory / "other.pem")
        self.present("good")
        self.trust("ours")

    def present(self, name: str) -> None:
        """Have the server's next start show that certificate."""
        for kind in ("key", "chain"):
            shutil.copy(self._path(f"{name}-{kind}"), self._path(f"server-{kind}"))

    def trust(self, name: str) -> None:
        """Have the server's next start take clients that this authority vouches for."""
        shutil.copy(self._path(name), self._path("trusted"))

    @property
    def flags(self) -> list[str]:
        """Tritonserver's, for mTLS."""
        return [
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={self._path('server-chain')}",
            f"--grpc-server-key={self._path('server-key')}",
            f"--grpc-root-cert={self._path('trusted')}",
        ]

    def client_config(self, url: str) -> ClientConfig:
        """The settings of a client that is right."""
        return ClientConfig(
            urls=(url,),
            tls_ca_file=str(self._path("ours")),
            tls_certificate_file=str(self._path("client-chain")),
            tls_key_file=str(self._path("client-key")),
        )

    def _write(self, name: str, certificate: trustme.LeafCert) -> None:
        certificate.private_key_pem.write_to_path(self._path(f"{name}-key"))
        self._path(f"{name}-key").chmod(0o600)  # clients refuse a key that others can read
        certificate.cert_chain_pems[0].write_to_path(self._path(f"{name}-chain"))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pem"
