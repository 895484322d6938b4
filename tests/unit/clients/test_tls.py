"""TLS and mTLS against a real gRPC server with throw-away certificates."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
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
from support.client_calls import KINDS, USER, Kind, assert_harmless
from support.fake_triton import FakeTriton

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


# --- files that are exchanged ---------------------------------------------------------------------
class _Exchange:
    """A server with mTLS, and a client's files; both can be put under another authority."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self._authority = trustme.CA()
        self.write()
        self.server = self._serve(0)
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
        """Put the client's files there, each beside its place and then renamed."""
        leaf = self._authority.issue_cert("ads.example")
        for name, content in (
            ("ca.pem", self._authority.cert_pem.bytes()),
            ("cert.pem", leaf.cert_chain_pems[0].bytes()),
            ("key.pem", leaf.private_key_pem.bytes()),
        ):
            fresh = self.files / f".{name}"
            fresh.touch(mode=0o600)
            fresh.write_bytes(content)
            fresh.rename(self.files / name)

    def restart(self) -> None:
        """Have the server know a new authority alone, on the same port."""
        self.server.stop()
        self._authority = trustme.CA()
        self.server = self._serve(self.port)

    def _serve(self, port: int) -> FakeTriton:
        leaf = self._authority.issue_cert("localhost")
        credentials = grpc.ssl_server_credentials(
            [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())],
            root_certificates=self._authority.cert_pem.bytes(),
            require_client_auth=True,
        )
        return FakeTriton().start(port, credentials=credentials)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[_Exchange]:
    found = _Exchange(tmp_path)
    yield found
    found.server.stop()


def _await(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _await_reason(ask: Callable[[], Any], reasons: set[Reason | None]) -> None:
    _await(lambda: ask().reason in reasons)


@pytest.mark.parametrize("health_interval_s", [0.0, 0.02])
def test_a_client_takes_new_files_when_the_server_wants_them(
    exchange: _Exchange, health_interval_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    config = exchange.config(health_interval_s=health_interval_s)
    with RetrievalClient(config) as client:
        assert client.forecast(USER).reason is None
        exchange.restart()
        _await_reason(lambda: client.forecast(USER), {Reason.BREAKER_OPEN})
        _await(
            lambda: (
                client.forecast(USER)
                and "is not from a trusted authority (tls_ca_file)" in caplog.text
            )
        )
        exchange.write()
        _await_reason(lambda: client.forecast(USER), {None})
    assert "were read again" in caplog.text


def test_an_asyncio_client_does_too(exchange: _Exchange) -> None:
    async def ask_until(client: AsyncRetrievalClient, reason: Reason | None) -> None:
        while (await client.forecast(USER)).reason is not reason:
            await asyncio.sleep(0.01)

    async def follow() -> None:
        async with AsyncRetrievalClient(exchange.config(health_interval_s=0.02)) as client:
            await ask_until(client, None)
            await asyncio.to_thread(exchange.restart)
            await ask_until(client, Reason.BREAKER_OPEN)
            exchange.write()
            await ask_until(client, None)

    asyncio.run(asyncio.wait_for(follow(), 30))


def test_files_that_cannot_be_used_are_named_and_change_nothing(
    exchange: _Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    with RetrievalClient(exchange.config(health_interval_s=0)) as client:
        assert client.forecast(USER).reason is None
        exchange.restart()
        exchange.write()
        (exchange.files / "key.pem").chmod(0o644)
        for _ in range(3):
            _await_reason(lambda: client.forecast(USER), {Reason.UNAVAILABLE})
        assert caplog.text.count("changed files cannot be read: tls_key_file") == 1
        (exchange.files / "key.pem").chmod(0o600)
        _await_reason(lambda: client.forecast(USER), {None})


def test_a_new_token_is_taken_when_the_old_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("the-old-token-0123456789")
    triton = FakeTriton().start()
    with RetrievalClient(triton.config(fail_open=True, token_file=str(path))) as client:
        assert client.forecast(USER).reason is None
        path.write_text("the-new-token-0123456789")
        assert client.forecast(USER).reason is None  # the server takes the old one still
        assert "the-old-token-0123456789" in triton.metadata[-1].values()
        triton.status = grpc.StatusCode.UNAUTHENTICATED
        assert client.forecast(USER).reason is Reason.DENIED
        triton.status = None
        assert client.forecast(USER).reason is None
        assert "the-new-token-0123456789" in triton.metadata[-1].values()
    triton.stop()


def test_calls_under_way_keep_their_channel(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("the-old-token-0123456789")
    triton = FakeTriton().start()
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
        _await(lambda: triton.calls)
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
    triton.stop()
