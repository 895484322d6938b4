from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adprior_client import DeadlineError, InvalidArgumentError, UnavailableError
from adprior_client.commands import predict
from adprior_runtime.errors import InvalidInputError
from support.client_calls import run_command
from support.fake_triton import interest_tensors
from support.processes import run_adprior
from support.server_names import Names, write_servers

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton


USER = '{"profile": {"city": "Łódź"}, "history": [], "as_of": "2024-05-31"}'


def _run(*options: str) -> int:
    return run_command(predict, *options)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    path = tmp_path / "user.json"
    path.write_text(USER, encoding="utf-8")
    return path


def test_json_has_the_keys_of_the_contract(
    triton: FakeTriton, user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--url", triton.url, "--user", str(user), "-k", "3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["advertisers", "exact", "missing_mass", "bundle_id"]
    assert [list(item) for item in printed["advertisers"]] == [
        ["advertiser_id", "name", "log_prob", "probability"]
    ] * 3
    assert triton.calls[0][1]["USER_CONTEXT"].item() == USER.encode()


def test_the_table_shows_the_forecast(
    triton: FakeTriton, user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--url", triton.url, "--user", str(user)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "advertiser", "id", "probability"]
    assert lines[1].split() == ["1", "Acme", "7", "60.7", "%", "█" * 20]
    assert lines[5].startswith("Exact: ")
    assert "12.5 %" in lines[6]
    assert lines[7] == "Bundle: bundle-1"


def test_interests_are_shown_below_the_advertisers(
    triton: FakeTriton, user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    triton.change(**interest_tensors())
    assert _run("--url", triton.url, "--user", str(user), "--interests", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[9].split() == ["interest", "id", "probability"]
    assert lines[10].split() == ["Tee", "12", "77.9", "%"]


def test_the_user_may_come_from_standard_input(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(USER.encode())))
    assert _run("--url", triton.url, "--user", "-", "--json") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON at line 1, column 1"),
        (b'{"as_of":\n oops}', "not JSON at line 2, column 2"),
        (b"[]", "top level: found a list, expected an object"),
        (b'"user"', "top level: found a string, expected an object"),
        (b'{"profile": {"age": NaN}}', "found NaN, which is not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 200_000, "nested too deep"),
        (b" " * 300_000, "300000 bytes, at most 262144 are taken"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "user.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        _run("--url", "127.0.0.1:1", "--user", str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(InvalidInputError, match="cannot be read: No such file or directory"):
        _run("--url", "127.0.0.1:1", "--user", str(path))


@pytest.mark.parametrize(
    ("usual_s", "hint"),
    [
        (1.5, "this server's answers take 1.5 s on average: give a longer --timeout"),
        (0.02, "this server's answers take 0.02 s on average, so it may be overloaded"),
        (None, "this server has not answered such a call yet: give a longer --timeout"),
    ],
)
def test_a_deadline_that_passes_is_compared_with_the_servers_usual_time(
    triton: FakeTriton, user: Path, usual_s: float | None, hint: str
) -> None:
    triton.hold, triton.usual_s = True, usual_s
    with pytest.raises(DeadlineError, match=rf"no answer within \S+ s; {hint}$"):
        _run("--url", triton.url, "--user", str(user), "--timeout", "0.1")


def test_a_late_server_of_a_file_is_asked_for_its_usual_time(
    triton: FakeTriton, user: Path, tmp_path: Path
) -> None:
    triton.hold, triton.usual_s = True, 1.5
    url = write_servers(tmp_path / "servers", [triton.url])
    with pytest.raises(DeadlineError, match=r"; this server's answers take 1\.5 s on average"):
        _run("--url", url, "--user", str(user), "--timeout", "0.1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("dns:///nobody.test:1", "no server is known: dns:///nobody.test:1: gone"),
        ("file:///nowhere/servers", "no server is known: file:///nowhere/servers: No such file"),
    ],
)
def test_a_name_or_file_without_servers_is_one_line(
    user: Path, names: Names, url: str, message: str
) -> None:
    names.answers["nobody.test"] = OSError(1, "gone")
    with pytest.raises(UnavailableError, match=message) as caught:
        _run("--url", url, "--user", str(user))
    assert "\n" not in str(caught.value)


def test_the_log_does_not_repeat_an_error(user: Path) -> None:
    done = run_adprior("predict", "--url", "file:///nowhere/servers", "--user", user)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "adprior predict: advertiser_retrieval: no server is known: file:///nowhere/servers: "
        "No such file or directory"
    ]


def test_an_unreachable_server_is_one_line(user: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        _run("--url", "127.0.0.1:1", "--user", str(user))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [("-k", "0"), ("-k", "1001"), ("--timeout", "0"), ("--timeout", "nan")]
)
def test_an_option_out_of_range_is_refused(user: Path, options: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgumentError, match="expected"):
        _run("--url", "127.0.0.1:1", "--user", str(user), *options)


def test_a_byte_order_mark_is_not_sent(triton: FakeTriton, tmp_path: Path) -> None:
    path = tmp_path / "user.json"
    path.write_text(USER, encoding="utf-8-sig")
    assert _run("--url", triton.url, "--user", str(path), "--json") == 0
    assert triton.calls[0][1]["USER_CONTEXT"].item() == USER.encode()
