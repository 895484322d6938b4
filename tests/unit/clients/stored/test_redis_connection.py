from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from adprior_client.stored.redis_connection import PasswordFile, RedisAddress, read_password
from adprior_client.stored.redis_errors import explain
from adprior_runtime.errors import InvalidInputError

EXPECTED = "expected redis://HOST:PORT/DB"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://ads@10.0.0.7:7000/3", "redis://10.0.0.7:7000/3"),
        ("rediss://[::1]:7000", "rediss://[::1]:7000/0"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock"),
    ],
)
def test_an_address_has_a_name(url: str, name: str) -> None:
    assert RedisAddress(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://h:6379/zero",
        "redis://h:6379/0?socket_timeout=100",
        "redis://h:0",
        "unix://run/redis.sock",
        "unix:///run/redis.sock?timeout=1",
        "redis://h:99999",
        "redis://[",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=EXPECTED):
        RedisAddress(url)


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@h", "redis://u:hunter2@h:1/0", "http://u:hunter2@"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RedisAddress(url)
    assert "hunter2" not in str(caught.value)
    assert "holds a password" in str(caught.value)


def test_a_password_file_holds_one_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    assert read_password(path) == "hunter2"
    for content in ("", "\n", "a\nb\n"):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match="expected only the password"):
            read_password(path)
    with pytest.raises(InvalidInputError, match="No such file"):
        read_password(tmp_path / "nowhere")


def test_tls_files_are_checked_before_the_first_connection(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    other = trustme.CA().issue_cert("localhost")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    url, ours = "rediss://localhost", tmp_path / "cert.pem"
    RedisAddress(url, tls_ca_file=tmp_path / "ca.pem")
    RedisAddress(url, tls_certificate_file=ours, tls_key_file=tmp_path / "key.pem")
    with pytest.raises(InvalidInputError, match="nowhere: No such file"):
        RedisAddress(url, tls_ca_file=tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"cert\.pem: not PEM, or the key"):
        RedisAddress(url, tls_certificate_file=ours, tls_key_file=tmp_path / "other.pem")
    with pytest.raises(InvalidInputError, match="go together"):
        RedisAddress(url, tls_certificate_file=ours)
    with pytest.raises(InvalidInputError, match="expected rediss://"):
        RedisAddress("redis://localhost", tls_ca_file=tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Command # 1 (HSET k secret-user v) of pipeline caused error: OOM command", "memory"),
        ("FLUBB secret-user", "it refused a command: FLUBB"),
        ("secret-user", "it refused a command: ValueError"),
    ],
)
def test_no_argument_of_a_command_is_quoted(text: str, said: str) -> None:
    message = explain(ValueError(text), "redis://h:1/0")
    assert said in message
    assert "secret" not in message


def test_a_password_file_is_read_at_each_connection(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old")
    named, nameless = PasswordFile(path, "ads"), PasswordFile(path, None)
    assert (named.get_credentials(), nameless.get_credentials()) == (("ads", "old"), ("old",))
    path.write_text("")  # it is being replaced
    assert named.get_credentials() == ("ads", "old")
    path.write_text("new")
    assert named.get_credentials() == ("ads", "new")
