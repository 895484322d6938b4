from __future__ import annotations

import time
from pathlib import Path

import pytest

from adprior_client import ClientConfig, UnavailableError
from adprior_client.server_list import each_server
from support.server_names import Names, write_servers


def test_each_server_has_settings_of_its_own(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", ".test")
    names.answers["pods.test"] = ["10.0.0.2", "10.0.0.1"]
    names.answers["gone.test"] = OSError(1, "gone")
    listed = write_servers(tmp_path / "servers", ["10.0.0.3:1"])
    urls = ("a:1", "dns:///pods.test:1", "dns:///gone.test:1", listed)
    servers = each_server(ClientConfig(urls=urls, tls=True, deadline_s=20))
    assert [(server.urls, server.tls_server_name, server.use_proxy) for server in servers] == [
        (("a:1",), None, True),
        (("10.0.0.1:1",), "pods.test", False),
        (("10.0.0.2:1",), "pods.test", False),
        (("10.0.0.3:1",), None, True),
    ]
    named = each_server(ClientConfig(urls=urls[1:2], tls_server_name="other"))
    assert {server.tls_server_name for server in named} == {"other"}
    plain = each_server(ClientConfig(urls=urls[1:2]))
    assert not any(server.is_secure for server in plain)


def test_without_a_server_the_error_says_why(names: Names, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=f"file://{tmp_path}/none: No such file"):
        each_server(ClientConfig(urls=(f"file://{tmp_path}/none",)))
    names.may_answer.clear()
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"not answered yet: dns:///pods\.test:1"):
        each_server(ClientConfig(urls=("dns:///pods.test:1",), deadline_s=0.1))
    assert time.monotonic() - began < 5
