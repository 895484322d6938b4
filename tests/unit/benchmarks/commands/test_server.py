from __future__ import annotations

from pathlib import Path

import pytest

from adprior_bench.commands import server
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_runtime.cli import main
from support.paths import ROOT

DIRECTORY = str(ROOT / "docs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure"),
        (["--url", "localhost:1"], "--url needs --bundle"),
        (["--repository", "r", "--bundle", "b"], "--bundle cannot be given with --repository"),
        (["--repository", "r", "--tuning", "t"], "--tuning needs --bundle alone"),
        (["--repository", "r", "--sweep"], "--sweep needs --bundle"),
        (["--bundle", "b", "--tuning-output", "t"], "--tuning-output needs --sweep"),
        (["--bundle", "b", "--p99-limit-ms", "9"], "--p99-limit-ms needs --sweep"),
        (["--bundle", "b", "--server-pid", "9"], "--server-pid needs --url"),
        (["--bundle", "b", "--client", "c.toml"], "--client needs --url"),
        (["--bundle", "b", "--events", "e"], "--events and --columns must be given together"),
        (["--bundle", "b", "--profiles", "p"], "--profiles needs --events"),
        (["--bundle", "b", "--shares", "0"], "--shares: found 0"),
        (["--bundle", "b", "--output", DIRECTORY], "exists and is no earlier report"),
        (["--bundle", "b", "--sweep", "--tuning-output", DIRECTORY], "is a directory"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "server", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('tls_ca_file = "ca.pem"\ntls_server_name = "ads"', "found tls_server_name, which perf"),
        ("tls = true", "found TLS without tls_ca_file"),
        ("token = 7", "token: found int"),
    ],
)
def test_a_connection_that_perf_analyzer_cannot_make_is_refused(
    settings: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = PerfAnalyzer(binary=Path("perf_analyzer"), version="9.9")
    monkeypatch.setattr(server, "find_perf_analyzer", lambda **_: found)
    file = tmp_path / "client.toml"
    file.write_text(f'urls = ["host:1"]\n{settings}')
    command = ["--url", "host:1", "--bundle", "b", "--client", str(file)]
    assert main(["bench", "server", *command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
