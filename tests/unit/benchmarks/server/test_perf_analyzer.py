from __future__ import annotations

from pathlib import Path

import pytest

from adprior_bench.server import perf_analyzer
from adprior_bench.server.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from adprior_runtime.cli import main
from adprior_runtime.errors import EnvironmentProblemError


def test_the_one_on_path_comes_first(
    analyzer: PerfAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(analyzer.binary.parent), prepend=":")
    assert find_perf_analyzer() == PerfAnalyzer(binary=analyzer.binary, version="9.9")


def test_without_one_that_starts_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "bin" / "perf_analyzer"
    broken.parent.mkdir()
    broken.write_text(
        "#!/bin/sh\necho 'libb64.so.0d: cannot open shared object file' >&2\nexit 127"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(EnvironmentProblemError, match="apt-get install libb64-0d"):
        find_perf_analyzer()
    assert main(["bench", "server", "--bundle", "b", "--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "adprior bench server --fetch-perf-analyzer" in line


def test_a_failed_download_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(perf_analyzer, "_REQUIREMENTS", "no-such-file-anywhere @ file:///none.whl")
    with pytest.raises(EnvironmentProblemError, match="pip could not download"):
        perf_analyzer.fetch_perf_analyzer()
    assert not perf_analyzer.cache_directory().exists()


def test_this_machine_is_called_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inner.example")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    analyzer = PerfAnalyzer(binary=Path("/nowhere/perf_analyzer"), version="9.9")
    environment = analyzer.environment()
    assert environment["https_proxy"] == "http://proxy.example:3128"
    exempt = environment["no_grpc_proxy"].split(",")
    assert exempt[:3] == ["inner.example", "localhost", "127.0.0.1"]
    assert "https_proxy" not in analyzer.environment(use_proxy=False)
