from __future__ import annotations

from typing import Any

import pytest

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.endpoints import Endpoints


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ({"grpc_port": 8000}, "--grpc-port and --http-port are both 8000"),
        ({"http_port": 70000}, "--http-port: 70000, expected 1 to 65535"),
    ],
)
def test_impossible_ports_are_refused(ports: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Endpoints(**ports)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"--host 192\.0\.2\.1: cannot listen there"):
        Endpoints(host="192.0.2.1").check_free()


def test_a_wildcard_host_is_reached_over_loopback() -> None:
    assert Endpoints(host="0.0.0.0").grpc_address == "127.0.0.1:8001"
    assert Endpoints(host="::").grpc_address == "[::1]:8001"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_may_use_plain_text(host: str) -> None:
    Endpoints(host=host, http_host=host, metrics_host=host).require_closed(has_tls=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])
@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("flag", ["--host", "--http-host", "--metrics-host"])
def test_plain_text_from_other_machines_needs_an_option(
    flag: str, host: str, has_tls: bool
) -> None:
    hosts: Any = {flag.removeprefix("--").replace("-", "_"): host}
    endpoints = Endpoints(**hosts)
    if has_tls and flag == "--host":
        endpoints.require_closed(has_tls=True)
        return
    remedy = "give --tls-cert and --tls-key, or add" if flag == "--host" else "add"
    message = rf"^{flag} {host}: .* in plain text; {remedy} --insecure only if"
    with pytest.raises(InvalidInputError, match=message):
        endpoints.require_closed(has_tls=has_tls)
