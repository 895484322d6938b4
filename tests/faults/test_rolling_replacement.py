"""Real servers that all get another bundle, one after another, below clients under load."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from adprior_bench.rolling.replacement import Phase
from adprior_runtime.cli import main
from faults.conftest import Report
from support.servers import build_repository

pytestmark = pytest.mark.triton


def test_a_rolling_replacement_loses_no_call_and_mixes_no_bundles(
    tiny_bundle: Path,
    tiny_repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    report: Report,
) -> None:
    green = build_repository(tiny_bundle, tmp_path / "green", "--beam-width", "24")
    repositories = ["--old", str(tiny_repository), "--new", str(green)]
    options = ["--servers", "3", "--clients", "2", "--users", "8", "--rate", "30"]
    options += ["--drain-seconds", "2", "--quiet-seconds", "3", "--deadline-ms", "20000"]
    capsys.readouterr()
    assert main(["bench", "rolling", *repositories, *options, "--live-share", "0.2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    report.sections["rolling replacement"] = printed
    assert (printed["failed"], printed["mixed"], printed["replaced"]) == (0, 0, 3)
    reasons = sum((Counter(phase["reasons"]) for phase in printed["phases"]), Counter())
    assert reasons == {}
    old, new = printed["old_bundle"], printed["new_bundle"]
    assert old != new
    assert set(printed["answered"]) == {old, new}
    assert min(printed["answered"].values()) > 50
    for phase in printed["phases"]:
        # A server starts as fast as the machine is.
        assert phase["calls"] > (0 if phase["phase"] == Phase.STARTING else 50), phase
