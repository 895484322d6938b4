"""TLS, mTLS and tokens against a real gRPC server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from adprior_client import (
    AsyncRetrievalClient,
    ClientConfig,
    DeniedError,
    InvalidArgumentError,
    RankingClient,
    Reason,
    RetrievalClient,
)
from adprior_client.server_list import each_server
from support.client_calls import KINDS, USER, Kind, assert_harmless, every_kind
from support.fake_triton import FakeTriton
from support.processes import await_true
from support.server_names import Names, write_servers


@dataclass(frozen=True, slots=True)
class _Secured:
    url: str
    files: Path

    def config(self, **settings: Any) -> ClientConfig:
        files: dict[str, Any] = {key: str(self.files / value) for key, value in settings.items()}
        return ClientConfig(urls=(self.url,), tls=True, health_interval_s=0, deadline_s=5, **files)


def _server_credentials(authority: trustme.CA, name: str = "localhost") -> Any:
    """Return the credentials of a server that requires a client certificate too."""
    leaf = authority.issue_cert(name)
    return grpc.ssl_server_credentials(
        [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )


def _write_client(authority: trustme.CA, files: Path, prefix: str = "") -> None:
    """Write a client's certificates; each file replaces an old one in one step."""
    leaf = authority.issue_cert("ads.example")
    for name, content in (
        ("ca.pem", authority.cert_pem.bytes()),
        ("cert.pem", leaf.cert_chain_pems[0].bytes()),
        ("key.pem", leaf.private_key_pem.bytes()),
    ):
        new = files / f".{name}"
        new.touch(mode=0o600)
        new.write_bytes(content)
        new.rename(files / f"{prefix}{name}")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Secured]:
    files = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    _write_client(authority, files)
    _write_client(trustme.CA(), files, "other-")
    server = FakeTriton().start(credentials=_server_credentials(authority))
    yield _Secured(server.url.replace("127.0.0.1", "localhost"), files)
    server.stop()


OURS = {"tls_certificate_file": "cert.pem", "tls_key_file": "key.pem"}
OTHERS = {"tls_certificate_file": "other-cert.pem", "tls_key_file": "other-key.pem"}


@every_kind
def test_the_right_certificates_get_an_answer(secured: _Secured, kind: Kind) -> None:
    assert kind.ask(secured.config(tls_ca_file="ca.pem", **OURS)).reason is None


@every_kind
@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"tls_ca_file": "other-ca.pem", **OURS}, id="another authority"),
        pytest.param({"tls_ca_file": "ca.pem"}, id="no client certificate"),
        pytest.param({"tls_ca_file": "ca.pem", **OTHERS}, id="another authority's certificate"),
        pytest.param(OURS, id="the system's authorities"),
    ],
)
def test_wrong_certificates_are_harmless(
    secured: _Secured, kind: Kind, files: dict[str, str]
) -> None:
    result = kind.ask(secured.config(**files))
    assert_harmless(result)
    assert result.reason is Reason.UNAVAILABLE


def test_a_key_that_other_users_can_read_is_refused(secured: _Secured) -> None:
    shown = secured.files / "shown-key.pem"
    shown.write_bytes((secured.files / "key.pem").read_bytes())
    shown.chmod(0o644)
    config = secured.config(tls_certificate_file="cert.pem", tls_key_file="shown-key.pem")
    with pytest.raises(InvalidArgumentError, match=r"tls_key_file: .*mode 0644 .* chmod 600"):
        RankingClient(config)


# --- names that are resolved --------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Named:
    """A server whose certificate has only a DNS name, and the settings to reach it."""

    server: FakeTriton
    settings: dict[str, Any]
    directory: Path

    def config(self, url: str, **settings: Any) -> ClientConfig:
        return ClientConfig(urls=(url,), **self.settings, **settings)

    @property
    def dns(self) -> str:
        return f"dns:///pods.test:{self.server.url.rpartition(':')[2]}"


@pytest.fixture
def named(names: Names, tmp_path: Path) -> Iterator[_Named]:
    names.answers |= {"pods.test": ["127.0.0.1"], "pods.test.": ["127.0.0.1"]}
    names.answers["others.test"] = ["127.0.0.1"]
    authority = trustme.CA()
    _write_client(authority, tmp_path)
    server = FakeTriton().start(credentials=_server_credentials(authority, "pods.test"))
    files = {name: str(tmp_path / file) for name, file in OURS.items()}
    files["tls_ca_file"] = str(tmp_path / "ca.pem")
    yield _Named(server, {"health_interval_s": 0, "deadline_s": 5, **files}, tmp_path)
    server.stop()


@every_kind
def test_the_name_is_checked_not_the_address(named: _Named, kind: Kind) -> None:
    assert kind.ask(named.config(named.dns)).reason is None
    assert kind.ask(named.config(named.dns.replace(".test", ".test."))).reason is None
    result = kind.ask(named.config(named.dns.replace("pods", "others")))
    assert_harmless(result)
    assert result.reason is Reason.UNAVAILABLE
    others = named.config(named.dns.replace("pods", "others"), tls_server_name="pods.test")
    assert kind.ask(others).reason is None


def test_an_address_in_a_file_needs_a_name(named: _Named, caplog: pytest.LogCaptureFixture) -> None:
    url = write_servers(named.directory / "servers", [named.server.url])
    with RetrievalClient(named.config(url, breaker_failures=1)) as client:
        assert client.forecast(USER).reason is Reason.UNAVAILABLE
    assert "the server's certificate has another name (tls_server_name)" in caplog.text
    with RetrievalClient(named.config(url, tls_server_name="pods.test")) as client:
        assert client.forecast(USER).reason is None


def test_each_server_of_a_name_keeps_the_name(named: _Named) -> None:
    for server in each_server(named.config(named.dns)):
        assert (server.urls, server.tls_server_name) == ((named.server.url,), "pods.test")
        with RetrievalClient(server) as client:
            assert client.forecast(USER).reason is None


# --- files that change ----------------------------------------------------------------------------
class _Exchange:
    """A server with mTLS and a client's files; both can be moved to another authority."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self._authority = trustme.CA()
        self.write()
        self.server = FakeTriton().start(credentials=_server_credentials(self._authority))
        self.port = int(self.server.url.rpartition(":")[2])

    def config(self, **settings: Any) -> ClientConfig:
        return ClientConfig(
            urls=(f"localhost:{self.port}",),
            deadline_s=5,
            breaker_failures=2,
            breaker_reset_s=0.05,
            tls_ca_file=str(self.files / "ca.pem"),
            tls_certificate_file=str(self.files / "cert.pem"),
            tls_key_file=str(self.files / "key.pem"),
            **settings,
        )

    def write(self) -> None:
        _write_client(self._authority, self.files)

    def restart(self) -> None:
        """Restart the server on its port under a new authority."""
        self.server.stop()
        self._authority = trustme.CA()
        credentials = _server_credentials(self._authority)
        self.server = FakeTriton().start(self.port, credentials=credentials)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[_Exchange]:
    found = _Exchange(tmp_path)
    yield found
    found.server.stop()


every_retrieval = pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.name)


@every_retrieval
@pytest.mark.parametrize("health_interval_s", [0.0, 0.02])
def test_a_client_reads_new_files_when_the_server_needs_them(
    exchange: _Exchange, kind: Kind, health_interval_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    with kind.open(exchange.config(health_interval_s=health_interval_s)) as client:
        assert client.ask().reason is None
        exchange.restart()
        client.ask_until(Reason.BREAKER_OPEN)
        await_true(lambda: client.ask() and "not from a trusted authority" in caplog.text)
        exchange.write()
        client.ask_until(None)
    assert "were read again" in caplog.text


def test_unreadable_files_are_named_and_change_nothing(
    exchange: _Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    with RetrievalClient(exchange.config(health_interval_s=0)) as client:
        assert client.forecast(USER).reason is None
        exchange.restart()
        exchange.write()
        (exchange.files / "key.pem").chmod(0o644)
        for _ in range(3):
            await_true(lambda: client.forecast(USER).reason is Reason.UNAVAILABLE)
        assert caplog.text.count("changed files cannot be read: tls_key_file") == 1
        (exchange.files / "key.pem").chmod(0o600)
        await_true(lambda: client.forecast(USER).reason is None)


def _token_file(directory: Path) -> Path:
    path = directory / "token"
    path.touch(mode=0o600)
    path.write_text("the-old-token-0123456789")
    return path


def test_a_new_token_is_read_when_the_old_one_is_refused(
    triton: FakeTriton, tmp_path: Path
) -> None:
    path = _token_file(tmp_path)
    with RetrievalClient(triton.config(fail_open=True, token_file=str(path))) as client:
        assert client.forecast(USER).reason is None
        path.write_text("the-new-token-0123456789")
        assert client.forecast(USER).reason is None  # the server still accepts the old one
        assert "the-old-token-0123456789" in triton.metadata[-1].values()
        triton.status = grpc.StatusCode.UNAUTHENTICATED
        assert client.forecast(USER).reason is Reason.DENIED
        triton.status = None
        assert client.forecast(USER).reason is None
        assert "the-new-token-0123456789" in triton.metadata[-1].values()


def test_calls_under_way_keep_their_channel(triton: FakeTriton, tmp_path: Path) -> None:
    path = _token_file(tmp_path)
    config = triton.config(token_file=str(path))

    def exchange(client: RetrievalClient | AsyncRetrievalClient) -> None:
        path.write_text(path.read_text() + "x")
        client._renew(DeniedError("refused"))
        gc.collect()
        triton.hold = False
        triton.release.set()

    triton.hold = True
    with RetrievalClient(config) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.forecast, USER)
        await_true(lambda: triton.calls)
        exchange(client)
        assert held.result().reason is None
        assert client.forecast(USER).reason is None
    triton.release.clear()
    triton.hold = True

    async def ask() -> None:
        async with AsyncRetrievalClient(config) as other:
            task = asyncio.create_task(other.forecast(USER))
            while len(triton.calls) < 3:
                await asyncio.sleep(0.01)
            exchange(other)
            assert (await task).reason is None
            assert (await other.forecast(USER)).reason is None

    asyncio.run(ask())
    assert triton.metadata[-1]["triton-grpc-protocol-inference-key"].endswith("9xx")
