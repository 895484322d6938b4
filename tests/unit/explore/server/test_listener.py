"""The page on a real socket: TLS, and what other machines could read."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
import trustme

from adprior_explore.server.listener import Listener
from adprior_runtime.errors import InvalidInputError
from support.explorer import Explorer
from support.fake_triton import FakeTriton
from support.processes import run_adprior

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"host": "0.0.0.0"}, "--page-token-file"),
        ({"host": "0.0.0.0", "has_token": True}, "plain text"),
        ({"host": "gpu.example", "has_token": True}, "plain text"),
        ({"port": 70_000}, "--port: 70000"),
        ({"certificate": Path("a.pem")}, "go together"),
    ],
)
def test_a_page_that_others_could_read_is_refused(options: dict[str, object], error: str) -> None:
    with pytest.raises(InvalidInputError, match=error):
        Listener(**({"host": "127.0.0.1", "port": 0} | options))  # type: ignore[arg-type]


def test_loopback_needs_neither_token_nor_certificate() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert not Listener(host=host, port=0).is_secure
    assert Listener(host="0.0.0.0", port=0, has_token=True, insecure=True)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listener = Listener(host="127.0.0.1", port=port)
        with pytest.raises(InvalidInputError, match=f"port {port} .* choose another with --port"):
            listener.bind()


def _write_private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_page_with_tls_and_a_token(triton: FakeTriton, tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    certificate = _write_private(tmp_path / "page.pem", leaf.cert_chain_pems[0].bytes())
    key = _write_private(tmp_path / "key.pem", leaf.private_key_pem.bytes())
    token = _write_private(tmp_path / "token", TOKEN.encode())
    pair = ("--page-cert", certificate, "--page-key", key)
    options = ("--url", triton.url, "--port", "0", "--page-token-file", token)
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    explorer = Explorer(*options, *pair)
    try:
        explorer.await_address()
        assert explorer.url.startswith("https://127.0.0.1:")
        headers = {"authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"{explorer.url}/api/state", headers=headers)
        with urllib.request.urlopen(request, context=trusting, timeout=60) as response:
            assert json.load(response)["sides"][0]["url"] == triton.url
            assert response.headers["set-cookie"].endswith("Secure")
    finally:
        explorer.stop()
    assert TOKEN not in explorer.output


def test_a_certificate_that_is_none_is_one_line(triton: FakeTriton, tmp_path: Path) -> None:
    wrong = _write_private(tmp_path / "page.pem", b"no certificate")
    pair = ("--page-cert", wrong, "--page-key", wrong)
    done = run_adprior("explore", "--url", triton.url, "--port", "0", *pair)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"adprior explore: --page-cert {wrong}: no PEM certificate")
    assert done.stderr.count("\n") == 1
