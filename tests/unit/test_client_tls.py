"""TLS and mTLS against a real gRPC server with throw-away certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from adprior_client import ClientConfig, InvalidArgumentError, RankingClient, Reason
from unit.client_calls import KINDS, Kind, assert_harmless
from unit.fake_triton import FakeTriton

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@dataclass(frozen=True, slots=True)
class _Secured:
    url: str
    files: Path

    def config(self, **settings: Any) -> ClientConfig:
        files: dict[str, Any] = {key: str(self.files / value) for key, value in settings.items()}
        return ClientConfig(urls=(self.url,), tls=True, health_interval_s=0, deadline_s=5, **files)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Secured]:
    """A server that wants the client's certificate too."""
    files = tmp_path_factory.mktemp("tls")
    authority, stranger = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("ads.example")
    authority.cert_pem.write_to_path(files / "ca.pem")
    stranger.cert_pem.write_to_path(files / "other-ca.pem")
    client.private_key_pem.write_to_path(files / "key.pem")
    client.cert_chain_pems[0].write_to_path(files / "cert.pem")
    foreign = stranger.issue_cert("ads.example")
    foreign.private_key_pem.write_to_path(files / "foreign-key.pem")
    foreign.cert_chain_pems[0].write_to_path(files / "foreign-cert.pem")
    for key in ("key.pem", "foreign-key.pem"):
        (files / key).chmod(0o600)
    fake = FakeTriton()
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    fake.start(credentials=credentials)
    yield _Secured(fake.url.replace("127.0.0.1", "localhost"), files)
    fake.stop()


OURS = {"tls_certificate_file": "cert.pem", "tls_key_file": "key.pem"}


@every_kind
def test_with_the_right_certificates_it_answers(secured: _Secured, kind: Kind) -> None:
    assert kind.ask(secured.config(tls_ca_file="ca.pem", **OURS)).reason is None


@every_kind
@pytest.mark.parametrize(
    "files",
    [
        {"tls_ca_file": "other-ca.pem", **OURS},
        {"tls_ca_file": "ca.pem"},
        {
            "tls_ca_file": "ca.pem",
            "tls_certificate_file": "foreign-cert.pem",
            "tls_key_file": "foreign-key.pem",
        },
        {**OURS},
    ],
    ids=["another authority", "no certificate of ours", "a stranger's", "the system's authorities"],
)
def test_with_wrong_ones_it_does_not_and_nothing_breaks(
    secured: _Secured, kind: Kind, files: dict[str, str]
) -> None:
    result = kind.ask(secured.config(**files))
    assert_harmless(result)
    assert result.reason is Reason.UNAVAILABLE


def test_a_key_that_others_can_read_is_refused(secured: _Secured) -> None:
    shown = secured.files / "shown-key.pem"
    shown.write_bytes((secured.files / "key.pem").read_bytes())
    shown.chmod(0o644)
    config = secured.config(tls_certificate_file="cert.pem", tls_key_file="shown-key.pem")
    with pytest.raises(InvalidArgumentError, match=r"tls_key_file: .*mode 0644 .* chmod 600"):
        RankingClient(config)
