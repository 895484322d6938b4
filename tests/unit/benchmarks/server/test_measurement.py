from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from adprior_bench.server.counters import Counters
from adprior_bench.server.load import Mode
from adprior_bench.server.measurement import Bench, Plan, saturated_row
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.running_server import RunningServer
from adprior_bench.server.scenarios import MODELS, Scenario
from adprior_client import ClientConfig
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.model_counters import STEPS, ModelCounters
from unit.benchmarks.server.conftest import MakeRow


def _counters(requests: int, seconds: float) -> Counters:
    model = ModelCounters(
        requests=requests, executions=requests // 2, step_s=dict.fromkeys(STEPS, seconds)
    )
    return Counters(models={"m": model}, cpu_s={"tritonserver": seconds, "m": 3 * seconds})


def test_counters_are_read_before_and_after() -> None:
    difference = _counters(30, 0.5).since(_counters(10, 0.1))
    assert difference.models["m"].requests == 20
    assert difference.models["m"].step_ms()["queue"] == pytest.approx(20)
    assert difference.cpu_s_per_request("m") == pytest.approx({"tritonserver": 0.02, "m": 0.06})
    assert _counters(10, 0.1).since(_counters(10, 0.1)).cpu_s_per_request("m") is None


def test_a_server_that_lost_a_process_is_not_measured() -> None:
    lost = Counters(models={"m": ModelCounters()}, cpu_s={"tritonserver": 1.0})
    with pytest.raises(EnvironmentProblemError, match="processes changed"):
        lost.since(_counters(10, 0.1))


class _FailingServer:
    """It answers 150 requests of each load, and fails one."""

    connection = ClientConfig(urls=("127.0.0.1:1",))

    def __init__(self) -> None:
        self._readings = 0

    def read_counters(self) -> Counters:
        self._readings += 1
        loads = self._readings // 2
        model = ModelCounters(requests=150 * loads, failures=loads)
        return Counters(models={MODELS[Scenario.RETRIEVAL]: model}, cpu_s=None)


def test_a_load_that_perf_analyzer_gives_up_is_no_error_of_the_server(
    analyzer: PerfAnalyzer,
) -> None:
    bench = Bench(
        analyzer=analyzer,
        server=cast("RunningServer", _FailingServer()),
        workers=(),
        input_data=lambda _: Path("in.json"),
        progress=lambda: None,
    )
    # The stand-in answers 75 a second, and gives up at the rate of 0.125.
    plan = Plan(concurrencies=[1], shares=[0.125 / 75], seconds=1.0, rounds=2, users=1)
    closed, opened = bench.measure_scenario(Scenario.RETRIEVAL, plan)
    assert (closed["errors"], closed["without_figures"], closed["problem"]) == (2, 0, None)
    assert (opened["errors"], opened["without_figures"]) == (2, 2)
    assert "Failed to maintain requested inference load" in opened["problem"]


def test_saturation_is_the_best_closed_loop(make_row: MakeRow) -> None:
    rows = [
        make_row(Mode.CLOSED, 1, 20.0),
        make_row(Mode.CLOSED, 4, 25.0),
        make_row(Mode.CLOSED, 8, None, errors=3),
        make_row(Mode.OPEN, 90.0, 90.0),
    ]
    assert saturated_row(rows, Scenario.LIVE_RANKING) is rows[1]
    assert saturated_row(rows, Scenario.RETRIEVAL) is None
