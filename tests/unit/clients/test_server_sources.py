from __future__ import annotations

import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client import ClientConfig, InvalidArgumentError, UnavailableError
from adprior_client.server_sources import (
    Address,
    DnsName,
    FixedServer,
    ServerFile,
    join_host_port,
    look_up,
    parse_lines,
    shares_of,
    source_of,
)
from support.processes import run
from support.server_names import Names, write_servers


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("a.example:8001", FixedServer("a.example:8001")),
        ("[2001:db8::1]:8001", FixedServer("[2001:db8::1]:8001")),
        ("dns:///pods.serving:8001", DnsName("dns:///pods.serving:8001", "pods.serving", 8001)),
        ("dns:///[::1]:1", DnsName("dns:///[::1]:1", "::1", 1)),
        ("file:///etc/a%20b", ServerFile("file:///etc/a%20b", Path("/etc/a b"))),
    ],
)
def test_a_url_names_a_source(url: str, source: Any) -> None:
    assert source_of(url) == source
    assert ClientConfig.from_env({"ADPRIOR_CLIENT_URLS": f"{url}, z:1"}).urls == (url, "z:1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "a:x",
        ":1",
        "a b:1",
        "http://a:1",
        "dns:///a",
        "dns:///:1",
        "dns:///a:0",
        "dns:///a:65536",
        "dns:///a/b:1",
        "dns://8.8.8.8/a:1",
        "file://relative",
        "file://",
        "file:///a%00b",
        7,
        None,
    ],
)
def test_other_urls_are_refused(url: Any) -> None:
    expected = r"found .*, expected HOST:PORT, dns:///NAME:PORT or file:///PATH"
    with pytest.raises(InvalidArgumentError, match=expected):
        source_of(url)
    with pytest.raises(InvalidArgumentError, match=expected):
        ClientConfig(urls=("a:1", url))


@given(
    st.text() | st.sampled_from(["dns:///", "file://"]).flatmap(lambda p: st.text().map(p.__add__))
)
def test_any_text_is_a_source_or_refused(text: str) -> None:
    with suppress(InvalidArgumentError):
        assert source_of(text).url == text


# --- names ----------------------------------------------------------------------------------------
def test_all_addresses_of_a_name_are_servers(names: Names) -> None:
    names.answers["pods.test."] = ["10.0.0.9", "2001:db8::2", "10.0.0.10", "10.0.0.9"]
    assert source_of("dns:///pods.test.:8001").read() == (
        Address("10.0.0.10:8001", "pods.test"),
        Address("10.0.0.9:8001", "pods.test"),
        Address("[2001:db8::2]:8001", "pods.test"),
    )
    assert Address("[2001:db8::2]:8001", "pods.test").named_url == "pods.test:8001"
    assert Address("10.0.0.9:8001").named_url == "10.0.0.9:8001"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not"),
        ([], "no address"),
    ],
)
def test_a_name_without_addresses_fails(names: Names, answer: Any, message: str) -> None:
    names.answers["pods.test"] = answer
    with pytest.raises(UnavailableError, match=f"dns:///pods.test:1: {message}"):
        source_of("dns:///pods.test:1").read()


def test_the_systems_resolver_is_asked() -> None:
    assert "127.0.0.1" in look_up("localhost", 1)
    with pytest.raises(UnavailableError, match=r"dns:///a{64}:1: "):
        source_of(f"dns:///{'a' * 64}:1").read()


def test_both_families_of_addresses_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, port: int, **options: Any) -> list[Any]:
        assert options == {"type": socket.SOCK_STREAM, "flags": socket.AI_ADDRCONFIG}
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = [address.url for address in source_of("dns:///both.test:8001").read()]
    assert found == ["10.0.0.1:8001", "[2001:db8::1]:8001"]
    assert [join_host_port(host, 1) for host in ("a", "::1")] == ["a:1", "[::1]:1"]


HOSTS_CHANGE = """
import sys
from adprior_client.server_sources import source_of
for line in sys.stdin:
    with open("/etc/hosts", "w") as file:
        file.write(line.replace(";", "\\n"))
    try:
        print(*[address.url for address in source_of("dns:///pods.test:8001").read()], flush=True)
    except Exception as error:
        print(error, flush=True)
"""


def test_the_systems_resolver_reads_changed_answers(tmp_path: Path) -> None:
    """A process has /etc/hosts of its own, in a namespace, and changes it."""
    (tmp_path / "hosts").touch()
    bind = f"mount --bind {tmp_path}/hosts /etc/hosts"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or run(*command, bind).returncode:
        pytest.skip("this machine allows no namespaces")
    script = f"{bind} && exec {sys.executable} -c '{HOSTS_CHANGE}'"
    lists = ["127.0.0.1 pods.test;127.0.0.2 pods.test", "127.0.0.3 pods.test", "127.0.0.3 x.test"]
    done = run(*command, script, input="".join(f"{each}\n" for each in lists), timeout=60)
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("127.0.0.1:8001 127.0.0.2:8001", "127.0.0.3:8001")
    assert third.startswith("dns:///pods.test:8001: ")


# --- files ----------------------------------------------------------------------------------------
def test_a_file_lists_one_server_a_line(tmp_path: Path) -> None:
    path = tmp_path / "servers"
    path.write_text("\ufeff# ours\nb:8001  # second\n\n[::1]:8001\r\na:8001\nb:8001\n")
    found = source_of(f"file://{path}").read()
    assert found == (Address("[::1]:8001"), Address("a:8001"), Address("b:8001"))
    write_servers(path, ["c:1"])
    assert source_of(f"file://{path}").read() == (Address("c:1"),)


def test_a_line_may_give_a_server_to_a_share_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "servers"
    path.write_text("b:1\tcanary=0.05 # new\na:1\n[::1]:1  canary=1\nc:1 canary=0\n")
    found = source_of(f"file://{path}").read()
    shares = {address.url: address.canary_share for address in found}
    assert shares == {"a:1": None, "b:1": 0.05, "[::1]:1": 1.0, "c:1": 0.0}
    assert parse_lines("\n".join(address.line for address in found)) == found
    assert Address("b:1", canary_share=0.05) == Address("b:1")


@given(st.integers(0, 10**9).map(lambda parts: parts / 10**9))
def test_a_share_is_written_and_read_back(share: float) -> None:
    written = Address("b:1", canary_share=share)
    assert shares_of(parse_lines(f"a:1\n{written.line}")) == [
        (Address("a:1"), None),
        (written, share),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "lists no server"),
        (b"# nothing\n\n", "lists no server"),
        (b"a:1\nb\n", "line 2: found 'b', expected HOST:PORT"),
        (b"dns:///a:1\n", "line 1: found 'dns:///a:1', expected HOST:PORT"),
        (b"a:1\n\xff\n", "not UTF-8"),
        *(
            (f"a:1\nb:1 {rest}\n".encode(), f"line 2: found 'b:1 {rest}', expected HOST:PORT or")
            for rest in (
                "canary",
                "canary=",
                "canary=5%",
                "canary=.5",
                "canary=1.1",
                "canary=-0.1",
                "canary=nan",
                "canary=0.1 canary=0.2",
                "Canary=0.1",
                "share=0.1",
            )
        ),
        (b"a:1\nb canary=0.1\n", "line 2: found 'b canary=0.1', expected HOST:PORT or"),
        (b"a:1 canary=0.1\n", "lists only canaries, expected a server without canary="),
        (b"b:1\na:1\na:1 canary=0.1\n", "line 3: a:1 is listed before, with another share"),
        (b"a:1\n" * (1 << 19), "longer than"),
    ],
)
def test_an_unusable_file_fails_as_a_whole(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "servers"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnavailableError, match=f"file://{path}: {message}"):
        source_of(f"file://{path}").read()
