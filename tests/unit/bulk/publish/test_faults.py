"""A Redis that cannot be written to: ``adprior publish`` prints one line and exits with 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from adprior_client import RedisForecasts
from adprior_runtime.cli import main
from support.processes import await_true
from support.redis_server import (
    RedisServer,
    many_users,
    needs_redis,
    row,
    running_redis,
    write_forecasts,
)

pytestmark = needs_redis
Refusal = Callable[..., str]


@pytest.fixture
def forecasts(tmp_path: Path) -> str:
    return str(write_forecasts(tmp_path / "few.parquet", many_users(100, 100)))


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], forecasts: str) -> Refusal:
    """Return a function that runs a publication that fails, and returns its error line."""

    def publish(url: str, *options: str, path: str = forecasts) -> str:
        assert main(["publish", "--redis", url, "--forecasts", path, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("adprior publish: ")
        assert error.count("\n") == 1
        return error

    return publish


def _publish(url: str, path: str, *options: str) -> None:
    assert main(["publish", "--redis", url, "--forecasts", path, *options]) == 0


def test_a_wrong_address(refusal: Refusal) -> None:
    assert "redis://127.0.0.1:1/0: no connection: nothing listens there" in refusal(
        "redis://127.0.0.1:1"
    )
    assert "no such socket" in refusal("unix:///nowhere/redis.sock")
    assert "no such host" in refusal("redis://no-such-host.invalid:1")
    assert "expected redis://" in refusal("localhost:6379")


def test_passwords(
    tmp_path: Path, refusal: Refusal, forecasts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_redis(tmp_path, "--requirepass", "right") as server:
        server.secret = "right"
        assert "it requires a password, and none was given" in refusal(server.url)
        (tmp_path / "wrong").write_text("wrong\n")
        (tmp_path / "right").write_text("right\n")
        wrong = refusal(server.url, "--password-file", str(tmp_path / "wrong"))
        assert "wrong user name or password" in wrong
        _publish(server.url, forecasts, "--password-file", str(tmp_path / "right"))
        monkeypatch.setenv("ADPRIOR_REDIS_PASSWORD", "right")
        _publish(server.url, forecasts)
        with RedisForecasts(server.url, password_file=tmp_path / "right", timeout_s=10) as source:
            assert source.find("user-7") is not None
        # Redis users with the rights that docs/stored_forecasts.md lists.
        client: Any = server.client()
        rights = ["+@read", "+@write", "+@transaction", "+@connection", "+time", "~adprior:*"]
        client.execute_command("ACL", "SETUSER", "ads", "on", ">pass", *rights)
        reader = ["+get", "+hget", "+select", "~adprior:*"]
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pass", *reader)
        monkeypatch.setenv("ADPRIOR_REDIS_PASSWORD", "pass")
        url = server.url.replace("redis://", "redis://ads@")
        _publish(url, forecasts)
        assert "its ACL lacks a command" in refusal(url, "--namespace", "others")
        assert "its ACL lacks a command" in refusal(url.replace("ads@", "reader@"))
        url = server.url.replace("redis://", "redis://reader@")
        with RedisForecasts(url, password="pass", timeout_s=10) as source:
            assert source.find("user-7") is not None


def test_out_of_memory_gives_back_what_was_written(
    tmp_path: Path, refusal: Refusal, forecasts: str
) -> None:
    many = str(write_forecasts(tmp_path / "many.parquet", many_users(30_000, 200)))
    with running_redis(tmp_path, "--maxmemory", "3mb") as server:
        _publish(server.url, forecasts)
        before = server.client().dbsize()
        assert "it is out of memory (maxmemory)" in refusal(
            server.url, "--batch-rows", "500", path=many
        )
        assert server.client().dbsize() == before
        with RedisForecasts(server.url, timeout_s=10) as source:
            assert source.find("user-7") is not None


def test_a_redis_that_evicts_is_detected(tmp_path: Path, refusal: Refusal) -> None:
    many = str(write_forecasts(tmp_path / "many.parquet", many_users(30_000, 200)))
    options = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    with running_redis(tmp_path, *options) as server:
        assert "does it evict keys" in refusal(server.url, "--batch-rows", "500", path=many)
        with RedisForecasts(server.url, timeout_s=10) as source:
            assert source.find("user-7") is None


def test_a_replica_is_read_from_and_not_written_to(
    tmp_path: Path, refusal: Refusal, forecasts: str
) -> None:
    for name in ("primary", "replica"):
        (tmp_path / name).mkdir()
    with running_redis(tmp_path / "primary", "--repl-diskless-sync-delay", "0") as primary:
        follows = ("--replicaof", f"127.0.0.1 {primary.port}")
        with running_redis(tmp_path / "replica", *follows) as replica:
            assert "it is a read-only replica: give the primary's address" in refusal(replica.url)
            _publish(primary.url, forecasts)
            with RedisForecasts(replica.url, timeout_s=10, refresh_s=0.01) as source:
                await_true(lambda: source.find("user-7") is not None)


def test_foreign_keys_of_the_namespace_are_left_alone(
    tmp_path: Path, refusal: Refusal, forecasts: str
) -> None:
    with running_redis(tmp_path) as server:
        client = server.client()
        for key in ("adprior:current", "adprior:versions", "adprior:publisher"):
            client.flushall()
            client.rpush(key, "theirs")
            assert "a key of this namespace holds something else" in refusal(server.url)
            assert client.lrange(key, 0, -1) == [b"theirs"]
        client.flushall()
        client.set("adprior:versions", "theirs")
        _publish(server.url, forecasts, "--namespace", "ads:forecasts")
        assert "expected letters, digits" in refusal(server.url, "--namespace", "a b")


def test_a_redis_that_does_not_answer(tmp_path: Path, refusal: Refusal) -> None:
    with running_redis(tmp_path) as server, server.standing_still():
        assert "no answer in time" in refusal(server.url, "--timeout", "1s")


def test_tls(tmp_path: Path, refusal: Refusal, forecasts: str) -> None:
    authority = trustme.CA()
    server_certificate = authority.issue_cert("localhost", "127.0.0.1")
    ours = authority.issue_cert("ads.example")
    files = {
        name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key", "our", "our-key")
    }
    authority.cert_pem.write_to_path(files["ca"])
    server_certificate.cert_chain_pems[0].write_to_path(files["cert"])
    server_certificate.private_key_pem.write_to_path(files["key"])
    ours.cert_chain_pems[0].write_to_path(files["our"])
    ours.private_key_pem.write_to_path(files["our-key"])
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    plain = RedisServer(tmp_path)
    options = ["--tls-port", str(plain.port), "--tls-cert-file", files["cert"]]
    options += ["--tls-key-file", files["key"], "--tls-ca-cert-file", files["ca"]]
    plain.options = ("--port", "0", *options)
    try:
        plain.start()
        url = plain.url.replace("redis://", "rediss://").replace("127.0.0.1", "localhost")
        trusted = ["--tls-ca-file", files["ca"]]
        both = ["--tls-certificate-file", files["our"], "--tls-key-file", files["our-key"]]
        assert "no TLS connection: certificate verify failed" in refusal(url, *both)
        other = refusal(url, *both, "--tls-ca-file", str(tmp_path / "other.pem"))
        assert "certificate verify failed" in other
        assert "no connection" in refusal(plain.url)  # the server speaks only TLS
        refusal(url, *trusted)  # the server requires a client certificate
        _publish(url, forecasts, *trusted, *both)
        with RedisForecasts(
            url,
            timeout_s=10,
            tls_ca_file=files["ca"],
            tls_certificate_file=files["our"],
            tls_key_file=files["our-key"],
        ) as source:
            assert source.find("user-7") is not None
    finally:
        plain.stop()


def test_no_error_quotes_a_user(tmp_path: Path, refusal: Refusal) -> None:
    secret = str(
        write_forecasts(tmp_path / "s.parquet", [row("a-secret-of-the-user", log_probs=[])])
    )
    with running_redis(tmp_path, "--maxmemory", "1") as server:
        assert "secret" not in refusal(server.url)
        assert "secret" not in refusal(server.url, path=secret)
