"""The command's options: what would show users to the network is refused."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from adprior_explore.commands import explore
from adprior_explore.server.listener import Listener
from adprior_runtime.errors import InvalidInputError
from support.client_calls import run_command
from support.extras import code_that_hides, modules_without
from support.processes import run
from support.server_names import write_servers


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


def test_loopback_needs_no_token_and_other_addresses_both() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert not Listener(host=host, port=0).is_secure
    assert Listener(host="0.0.0.0", port=0, has_token=True, insecure=True)
    certificate, key = Path("a.pem"), Path("b.pem")
    listener = Listener(host="0.0.0.0", port=0, has_token=True, certificate=certificate, key=key)
    assert listener.is_secure


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listener = Listener(host="127.0.0.1", port=port)
        with pytest.raises(InvalidInputError, match=f"port {port} .* choose another with --port"):
            listener.bind()


def test_a_list_of_several_servers_is_refused(tmp_path: Path) -> None:
    listed = write_servers(tmp_path / "servers", ["10.0.0.1:8001", "10.0.0.2:8001"])
    with pytest.raises(InvalidInputError, match="found 2 servers, expected one"):
        run_command(explore, "--url", listed)


def test_the_command_needs_its_own_extra_only() -> None:
    code = code_that_hides(modules_without("explore"))
    done = run(sys.executable, "-c", f"{code}\nimport adprior_explore.commands.explore")
    assert done.returncode == 0, done.stderr
