from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.access import Access
from adprior_runtime.server.tls import ServerTls

ADMIN = "admin-token-0123456789"
INFERENCE = "inference-token-0123456789"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "ca.pem")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for name, until in (("server", None), ("other", None), ("expired", yesterday)):
        issued = authority.issue_cert("localhost", not_after=until)
        issued.cert_chain_pems[0].write_to_path(place / f"{name}.pem")
        issued.private_key_pem.write_to_path(place / f"{name}-key.pem")
    (place / "garbage.pem").write_text("no PEM")
    (place / "garbage-key.pem").write_text("no PEM")
    for name, text in (("admin", ADMIN), ("inference", INFERENCE)):
        (place / name).write_text(text)
    for path in place.iterdir():
        path.chmod(0o600)
    return place


def test_by_default_nobody_can_change_the_server_and_everyone_can_call_it() -> None:
    access = Access()
    flags = access.flags()
    closed = f"model-repository,shared-memory,trace,logging:admin-key={access.admin_token}"
    assert flags == [f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}"]
    assert len(access.admin_token) >= 32
    assert Access().admin_token != access.admin_token


def test_tokens_and_tls_become_flags(files: Path) -> None:
    access = Access.of_files(
        certificate=files / "server.pem",
        key=files / "server-key.pem",
        client_ca=files / "ca.pem",
        admin_token=files / "admin",
        inference_token=files / "inference",
    )
    flags = access.flags()
    admin = f"model-repository,shared-memory,trace,logging:admin-key={ADMIN}"
    asked = "inference,metadata,model-config,statistics:"
    assert f"--grpc-restricted-protocol={admin}" in flags
    assert f"--http-restricted-api={admin}" in flags
    assert f"--grpc-restricted-protocol={asked}inference-key={INFERENCE}" in flags
    assert f"--grpc-root-cert={files / 'ca.pem'}" in flags
    assert "--grpc-use-ssl-mutual=true" in flags
    # HTTP has no TLS: what it would answer is for nobody, whatever token they have.
    (http,) = (flag for flag in flags if flag.startswith(f"--http-restricted-api={asked}"))
    assert INFERENCE not in http
    assert all(any(token in flag for flag in flags) for token in access.tokens)


def test_without_tls_http_requires_the_token_too() -> None:
    flags = Access(inference_token=INFERENCE).flags()
    asked = f"inference,metadata,model-config,statistics:inference-key={INFERENCE}"
    assert f"--http-restricted-api={asked}" in flags
    assert f"--grpc-restricted-protocol={asked}" in flags


def test_tokens_are_not_shown() -> None:
    access = Access(admin_token=ADMIN, inference_token=INFERENCE)
    assert not any(token in repr(access) for token in access.tokens)


def test_the_same_token_for_both_kinds_of_callers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="are the same"):
        Access(admin_token=ADMIN, inference_token=ADMIN)


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("expired.pem", "expired-key.pem", r"expired\.pem: callers would refuse it: .*has expired"),
        ("server.pem", "other-key.pem", r"not a certificate and its key .*key values mismatch"),
        ("garbage.pem", "garbage-key.pem", "not a certificate and its key in PEM"),
        ("none.pem", "server-key.pem", r"none\.pem: no such file"),
    ],
)
def test_a_certificate_that_no_caller_could_use_is_refused(
    files: Path, certificate: str, key: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ServerTls(certificate=files / certificate, key=files / key)


def test_a_file_without_authorities_is_refused(files: Path) -> None:
    pair = {"certificate": files / "server.pem", "key": files / "server-key.pem"}
    with pytest.raises(InvalidInputError, match=r"garbage\.pem: no certificates in PEM"):
        ServerTls(**pair, client_ca=files / "garbage.pem")


def test_a_key_that_others_can_read_is_refused(files: Path, tmp_path: Path) -> None:
    shown = tmp_path / "key.pem"
    shown.write_bytes((files / "server-key.pem").read_bytes())
    shown.chmod(0o644)
    with pytest.raises(InvalidInputError, match=r"key\.pem: mode 0644"):
        ServerTls(certificate=files / "server.pem", key=shown)


def test_authorities_without_a_certificate_are_refused(files: Path) -> None:
    with pytest.raises(InvalidInputError, match="--tls-client-ca is for use with both"):
        Access.of_files(client_ca=files / "ca.pem")
