"""``adprior bench server`` with the real perf_analyzer, on the real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adprior_bench.server.measurement import ROW_KEYS
from adprior_bench.server.perf_analyzer import find_perf_analyzer
from adprior_runtime.cli import main
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.tritonserver import TritonServer
from support.data_set import DataSet

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module", autouse=True)
def _needs_perf_analyzer() -> None:
    try:
        find_perf_analyzer()
    except EnvironmentProblemError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "scenarios",
    [
        ["live_ranking"],
        pytest.param(["live_ranking", "stored_ranking"], marks=pytest.mark.long_form),
    ],
)
def test_a_server_is_compared_with_the_engine_in_process(
    server: TritonServer,
    bundle: Path,
    data_set: DataSet,
    scenarios: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["bench", "server", "--url", server.grpc_address, "--bundle", str(bundle)]
    command += ["--server-pid", str(server.process.pid), "--quick", "--seconds", "2", "--json"]
    command += ["--scenarios", *scenarios, "--concurrencies", "2"]
    command += ["--shares", "0.1"]
    assert main([*command, *data_set.log_options()]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["scenario"], row["mode"]) for row in rows] == [
        (scenario, mode) for scenario in scenarios for mode in ("closed", "open")
    ]
    for row in rows:
        assert list(row) == list(ROW_KEYS)
        assert row["problem"] is None
        assert row["errors"] == 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["served_over_in_process"] == pytest.approx(
            row["throughput"] / row["in_process_throughput"]
        )
        assert row["cpu_s_per_request"] == pytest.approx(sum(row["cpu_s_by_process"].values()))
        assert row["in_process_cpu_s_per_request"] > 0
    steps = {"tokenizer", "llm_engine", "advertiser_decoder", "prior_head"}
    assert steps <= rows[0]["step_ms"].keys()
    assert rows[0]["cpu_s_by_process"].keys() == {"tritonserver", *steps}


def test_another_bundle_than_the_servers_is_refused(
    server: TritonServer, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "server", "--url", server.grpc_address, "--quick"]
    command += ["--bundle", str(tiny_bundle)]
    assert main(command) == 2
    assert "serves bundle" in capsys.readouterr().err
