"""Proxies of the environment: never used for a server on loopback, and named in errors."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from adprior_client import (
    BreakerOpenError,
    ClientConfig,
    RankingClient,
    RetrievalClient,
    UnavailableError,
)
from adprior_client._call.causes import find_cause
from adprior_client._call.proxy import Proxy, is_loopback
from adprior_client._call.wire import channel_settings
from adprior_client.config import PROXY_VARIABLES
from adprior_client.server_sources import Address
from support.client_calls import BASE, CANDIDATES, USER, Kind, every_kind
from support.fake_triton import FakeTriton

UNREACHABLE = "http://user:secret@127.0.0.1:1"


@pytest.fixture(autouse=True)
def _without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@every_kind
@pytest.mark.parametrize("variable", PROXY_VARIABLES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_used_for_loopback(
    triton: FakeTriton, kind: Kind, variable: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, UNREACHABLE)
    monkeypatch.setenv(variable.upper(), UNREACHABLE)
    config = replace(triton.config(), urls=(triton.url.replace("127.0.0.1", host),))
    assert kind.ask(config).reason is None


@every_kind
def test_an_error_names_the_proxy(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", UNREACHABLE)
    config = ClientConfig(
        urls=("ads.example:8001",), fail_open=False, max_attempts=1, health_interval_s=0
    )
    with pytest.raises(UnavailableError, match=r"proxy 127\.0\.0\.1:1 \(https_proxy\)") as caught:
        kind.ask(config)
    assert "use_proxy=False" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_open_breaker_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("grpc_proxy", UNREACHABLE)
    config = ClientConfig(
        urls=("ads.example:8001",), breaker_failures=1, max_attempts=1, health_interval_s=0
    )
    with caplog.at_level(logging.WARNING, "adprior_client"), RankingClient(config) as client:
        assert client.score(USER, CANDIDATES, BASE).reason == "unavailable"
    assert "through the proxy 127.0.0.1:1 (grpc_proxy)" in caplog.text
    with RetrievalClient(replace(config, fail_open=False)) as client:
        with pytest.raises(UnavailableError):
            client.forecast(USER)
        with pytest.raises(BreakerOpenError, match=r"through the proxy 127\.0\.0\.1:1"):
            client.forecast(USER)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "use_proxy", "is_kept"),
    [
        ("ads.example:1", True, True),
        ("ads.example:1", False, False),
        ("[2001:db8::1]:1", True, True),
        ("localhost:1", True, False),
        ("127.8.9.1:1", True, False),
        ("[::1]:1", True, False),
    ],
)
def test_a_setting_turns_proxies_off(url: str, *, use_proxy: bool, is_kept: bool) -> None:
    config = ClientConfig(urls=(url,), use_proxy=use_proxy)
    settings = channel_settings(config, Address(url), is_only=True)
    assert (("grpc.enable_http_proxy", 0) in settings["channel_args"]) != is_kept
    assert (
        ClientConfig.from_env(
            {"ADPRIOR_CLIENT_URLS": url, "ADPRIOR_CLIENT_USE_PROXY": str(use_proxy)}
        )
        == config
    )


def test_a_name_that_is_exempt_exempts_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", ".internal")
    config, off = ClientConfig(urls=("dns:///x:1",)), ("grpc.enable_http_proxy", 0)
    for name, is_exempt in (("ads.internal", True), ("ads.example", False), ("", False)):
        address = Address("10.1.2.3:1", name)
        settings = channel_settings(config, address, is_only=True)
        assert (off in settings["channel_args"]) == is_exempt
        assert ("proxy p:1" in find_cause("Socket closed", address, config)) != is_exempt


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("LocalHost:1", True),
        ("localhost.:1", True),
        ("ads.localhost:1", True),
        ("dns:localhost:1", True),
        ("ipv4:127.0.0.1:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("0.0.0.0:1", True),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
    ],
)
def test_loopback_is_known_by_its_names(url: str, *, is_here: bool) -> None:
    assert is_loopback(url) == is_here


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("HTTP://u:p@w@p:1/x", "p:1"),
        ("http://[::1]:3128", "[::1]:3128"),
        ("http://[p", "[p"),  # taken by gRPC, which then finds no such host
        ("https://p:1", None),
        ("p:1", None),
        ("http://", None),
    ],
)
def test_only_http_addresses_are_proxies(address: str, shown: str | None) -> None:
    found = Proxy.of("ads.example:8001", {"http_proxy": address})
    assert found == (None if shown is None else Proxy(shown, "http_proxy"))


@every_kind
def test_a_malformed_proxy_breaks_no_call(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://[p")
    config = ClientConfig(
        urls=("ads.example:8001",), fail_open=True, max_attempts=1, health_interval_s=0
    )
    assert kind.ask(config).reason == "unavailable"


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, None),
        ({"http_proxy": "http://p:1"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "https_proxy": "http://p:1"}, "https_proxy"),
        ({"http_proxy": "http://p:1", "grpc_proxy": "http://p:1"}, "grpc_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "other, .example"}, None),
        ({"http_proxy": "http://p:1", "no_proxy": "other"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": ".example", "no_grpc_proxy": "x"}, "http_proxy"),
    ],
)
def test_the_proxy_is_the_one_that_grpc_uses(environ: dict[str, str], variable: str | None) -> None:
    found = Proxy.of("ads.example:8001", environ)
    assert found == (None if variable is None else Proxy("p:1", variable))
    in_network = {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}
    assert Proxy.of("10.1.2.3:8001", in_network) is None
    assert Proxy.of("11.1.2.3:8001", in_network) is not None
