from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adprior_client import ClientConfig, InvalidArgumentError, RankingClient
from adprior_client._call.wire import channel_settings
from adprior_client.server_sources import Address


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": ()}, r"urls: found \(\)"),
        ({"urls": "localhost:8001"}, "urls: found 'localhost:8001', expected a tuple"),
        *(
            ({"urls": (url,)}, f"url: found {url!r}, expected HOST:PORT")
            for url in ("", "localhost", "http://localhost:8001", ":8001", "host:", 8001)
        ),
        ({"urls": ("a:1", "a:1")}, "a server is named twice"),
        ({"deadline_s": 0}, "deadline_s: found 0, expected more than 0"),
        ({"deadline_s": float("nan")}, "deadline_s: found nan"),
        ({"deadline_s": -1.0}, "deadline_s: found -1"),
        ({"deadline_s": float("inf")}, "deadline_s: found inf"),
        ({"deadline_s": True}, "deadline_s: found bool"),
        ({"deadline_s": "1"}, "deadline_s: found str, expected a number"),
        ({"health_interval_s": -1}, "health_interval_s: found -1, expected at least 0"),
        ({"discovery_interval_s": 0}, "discovery_interval_s: found 0, expected more than 0"),
        ({"max_attempts": 6}, "max_attempts: found 6, expected an integer from 1 to 5"),
        ({"max_attempts": 1.5}, "max_attempts: found 1.5"),
        ({"breaker_failures": 0}, "breaker_failures: found 0"),
        ({"fail_open": "yes"}, "fail_open: found str, expected bool"),
        ({"tls_ca_file": 7}, "tls_ca_file: found int"),
        ({"tls_key_file": "key"}, "go together"),
        ({"metadata": (("Authorization", "x"),)}, "'Authorization': expected lower case"),
        ({"metadata": (("a b", "x"),)}, "'a b': expected lower case"),
        ({"metadata": (("x-bin", "x"),)}, "no -bin at its end"),
        ({"metadata": (("authorization", "secret\n"),)}, "not printable ASCII"),
        ({"stored_reserve_s": 1.0, "deadline_s": 0.5}, "expected less than deadline_s, 0.5"),
        ({"keepalive_time_s": 1e7}, "at most 1,000,000"),
        ({"initial_backoff_s": 1e-12}, "more than 0.0001"),
        ({"max_backoff_s": float("inf")}, "max_backoff_s: found inf"),
        ({"metadata": {"a": "b"}}, "a tuple of pairs of text"),
        (
            {"priority": "first"},
            "'first', expected one of ranking, retrieval, bulk",
        ),
        ({"priority": 1}, "priority: found int"),
        ({"token": "a\n"}, "token: not printable ASCII"),
        ({"token": "a", "token_file": "b"}, "token and token_file: give one"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ClientConfig(**({"urls": ("a:1",)} | settings))


def test_metadata_is_not_shown() -> None:
    config = ClientConfig(urls=("a:1",), metadata=(("authorization", "Bearer secret"),))
    assert "secret" not in repr(config)
    with pytest.raises(InvalidArgumentError) as caught:
        ClientConfig(urls=("a:1",), metadata=(("authorization", "secret\n"),))
    assert "secret" not in str(caught.value)


def test_a_file_and_variables_give_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(
        'urls = ["a:1", "b:2"]\ndeadline_s = 0.05\nfail_open = false\nmax_attempts = 2\n'
        'tls_ca_file = "ca.pem"\n[metadata]\nauthorization = "Bearer x"\n'
    )
    environ = {
        "ADPRIOR_CLIENT_URLS": "a:1, b:2",
        "ADPRIOR_CLIENT_DEADLINE_S": "0.05",
        "ADPRIOR_CLIENT_FAIL_OPEN": "false",
        "ADPRIOR_CLIENT_MAX_ATTEMPTS": "2",
        "ADPRIOR_CLIENT_TLS_CA_FILE": "ca.pem",
        "ADPRIOR_CLIENT_METADATA": "authorization=Bearer x",
        "ADPRIOR_DEVICE": "the server's",
    }
    config = ClientConfig.from_toml(path)
    assert config == ClientConfig.from_env(environ)
    assert config == ClientConfig(
        urls=("a:1", "b:2"),
        deadline_s=0.05,
        fail_open=False,
        max_attempts=2,
        tls_ca_file="ca.pem",
        metadata=(("authorization", "Bearer x"),),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("urls = [", "not a TOML file"),
        ("deadline_s = 1", "urls is missing"),
        ('urls = ["a:1"]\ndeadline = 1', "unknown: deadline; known: backoff_multiplier"),
        ('urls = ["a:1"]\ndeadline_s = 0', "deadline_s: found 0"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=rf"client\.toml: .*{message}"):
        ClientConfig.from_toml(path)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "urls is missing"),
        ({"ADPRIOR_CLIENT_DEADLIN_S": "1"}, "unknown: deadlin_s"),
        ({"ADPRIOR_CLIENT_DEADLINE_S": "soon"}, "DEADLINE_S: found 'soon', expected a number"),
        ({"ADPRIOR_CLIENT_SHADOW": "1"}, "SHADOW: found '1', expected true or false"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ClientConfig.from_env(environ)


def _arguments(config: ClientConfig) -> dict[str, Any]:
    settings = channel_settings(config, Address(config.urls[0]), is_only=len(config.urls) == 1)
    return dict(settings["channel_args"])


def test_grpc_retries_only_with_a_single_server() -> None:
    one, several = ClientConfig(urls=("a:1",)), ClientConfig(urls=("a:1", "b:1"))
    [method] = json.loads(_arguments(one)["grpc.service_config"])["methodConfig"]
    assert method["retryPolicy"] == {
        "maxAttempts": 3,
        "initialBackoff": "0.010000000s",
        "maxBackoff": "0.200000000s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    [method] = json.loads(_arguments(several)["grpc.service_config"])["methodConfig"]
    assert "retryPolicy" not in method


def test_keepalive_and_quick_reconnection_are_set() -> None:
    arguments = _arguments(ClientConfig(urls=("a:1",), keepalive_time_s=7, keepalive_timeout_s=2))
    assert arguments["grpc.keepalive_time_ms"] == 7000
    assert arguments["grpc.keepalive_timeout_ms"] == 2000
    assert arguments["grpc.max_reconnect_backoff_ms"] == 1000


def test_a_missing_certificate_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"tls_ca_file: /nowhere/ca\.pem: No such file"):
        RankingClient(ClientConfig(urls=("a:1",), tls_ca_file="/nowhere/ca.pem"))
