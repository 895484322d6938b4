"""``adprior bench server``: what it asks, reads and concludes; no server runs here."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from adprior_bench.server import perf_analyzer
from adprior_bench.server.connection import analyzer_options, read_connection
from adprior_bench.server.figures import make_report, show_report
from adprior_bench.server.load import Load, Mode, run_load
from adprior_bench.server.measurement import (
    ROW_KEYS,
    Bench,
    Plan,
    measure_scenario,
    saturated_row,
)
from adprior_bench.server.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from adprior_bench.server.scenarios import MODELS, InProcess, Scenario, write_input_data
from adprior_bench.server.server_work import STEPS, ModelWork, Server, Snapshot
from adprior_bench.server.sweep import Trial, Tuning, batchings, layouts, recommend, sweep
from adprior_bench.server.sweep_command import sweep_table
from adprior_bench.server.workload import StoredForecast, UserRequest, draw_requests, read_requests
from adprior_build.data.event_log import UserHistory
from adprior_client import ClientConfig
from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.cli import main
from adprior_runtime.contract import LLM_ENGINE, Target
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.prompt.context import Event, parse_context
from adprior_runtime.repository import model_specs
from adprior_runtime.repository.model_specs import Scaling, model

NOWHERE = ClientConfig(urls=("127.0.0.1:1",))
BUNDLE = Path(__file__).parents[4] / "demo" / "bundle"
FORECAST = StoredForecast(
    advertiser_ids=[23, 214], log_probs=[-1.5, -2.0], missing_mass=0.5, exact=True
)


@pytest.fixture(scope="module")
def requests() -> list[UserRequest]:
    return read_requests(Bundle.open(BUNDLE), 12, None, None, None)


def test_requests_are_mixed_and_drawn_alike_each_time(requests: list[UserRequest]) -> None:
    assert requests == read_requests(Bundle.open(BUNDLE), 12, None, None, None)
    lengths = {len(parse_context(each.context.encode()).history) for each in requests}
    assert len(lengths) > 3
    for each in requests:
        assert len(set(each.candidate_ids)) == len(each.base_logits) == 50


def test_candidates_hold_the_users_own_advertisers_first() -> None:
    advertisers = Advertisers.load(Bundle.open(BUNDLE).path(ADVERTISERS_DIRECTORY))
    rows = np.random.default_rng(3).choice(len(advertisers.ids), 30, replace=False)
    events = [
        Event(
            time=datetime(2024, 1, 1 + day, tzinfo=UTC),
            action="purchase",
            advertiser=advertisers.name(int(row)).decode(),
        )
        for day, row in enumerate(rows)
    ]
    user = UserHistory(user_id="a", events=events)
    (asked,) = draw_requests([user], advertisers, count=1, seed=1)
    past = [event.advertiser for event in parse_context(asked.context.encode()).history]
    own = [int(advertisers.ids[row]) for row in rows[: len(past)]]
    assert set(own[-20:]) <= set(asked.candidate_ids)
    assert len(set(own) & set(asked.candidate_ids)) < 30


@pytest.mark.parametrize("scenario", [*Scenario])
def test_perf_analyzer_is_given_what_the_model_takes(
    scenario: Scenario, requests: list[UserRequest], tmp_path: Path
) -> None:
    kept = [
        UserRequest(
            context=each.context,
            candidate_ids=each.candidate_ids,
            base_logits=each.base_logits,
            forecast=FORECAST,
        )
        for each in requests
    ]
    write_input_data(tmp_path / "in.json", scenario, kept)
    steps = json.loads((tmp_path / "in.json").read_text())["data"]
    assert len(steps) == len(requests)
    model = model_specs.model(
        {
            Scenario.RETRIEVAL: contract.ADVERTISER_RETRIEVAL,
            Scenario.LIVE_RANKING: contract.ADVERTISER_RANKING,
            Scenario.STORED_RANKING: contract.PRIOR_HEAD,
        }[scenario],
        contract.Target.CPU,
    )
    needed = {tensor.name for tensor in model.inputs if not tensor.optional}
    for step in steps:
        assert needed <= step.keys() <= {tensor.name for tensor in model.inputs}
        assert all(item["shape"] == [len(item["content"])] for item in step.values())


def test_the_engine_in_process_answers_every_scenario(requests: list[UserRequest]) -> None:
    engine = InProcess(BUNDLE, threads=1)
    asked = UserRequest(
        context=requests[0].context,
        candidate_ids=requests[0].candidate_ids,
        base_logits=requests[0].base_logits,
        forecast=FORECAST,
    )
    (forecast,) = (call() for call in engine.calls(Scenario.RETRIEVAL, [asked]))
    assert len(forecast.advertiser_ids) == 20
    for scenario in (Scenario.LIVE_RANKING, Scenario.STORED_RANKING):
        (logits,) = (call() for call in engine.calls(scenario, [asked]))
        assert logits.shape == (50,)
        assert not np.array_equal(logits, np.array(asked.base_logits, dtype=np.float32))


_EXPORT = """\
import json, sys
arguments = sys.argv[1:]
if "--version" in arguments:
    sys.exit(print("Perf Analyzer Version 9.9 (commit none)", file=sys.stderr))
if "0.125" in " ".join(arguments):
    print("error: Failed to maintain requested inference load.")
    sys.exit(99)
path = arguments[arguments.index("--profile-export-file") + 1]
second = 10**9
requests = [
    {"timestamp": 5 * second + i * second // 100,
     "response_timestamps": [5 * second + i * second // 100 + (i + 1) * 10**6]}
    for i in range(150)
]
experiment = {"requests": requests, "window_boundaries": [5 * second, 6 * second, 7 * second]}
document = json.dumps({"experiments": [experiment]}).encode()
open(path, "wb").write(document[:-1] + b', "raw": "\\xff\\xa0"}')
"""


@pytest.fixture
def exporting(tmp_path: Path) -> PerfAnalyzer:
    """A stand-in that exports known times: what is read from them is what is tested."""
    binary = tmp_path / "perf_analyzer"
    binary.write_text(f"#!/usr/bin/env python3\n{_EXPORT}")
    binary.chmod(0o755)
    return PerfAnalyzer(binary=binary, version="stand-in")


def test_figures_are_taken_from_the_times_of_each_request(exporting: PerfAnalyzer) -> None:
    load = Load(model="m", mode=Mode.CLOSED, value=2, seconds=1)
    result = run_load(exporting, NOWHERE, Path("in.json"), load)
    # Of 150 requests, sent each 10 ms and answered after 1, 2, ... 150 ms, all within two seconds.
    assert result.requests == 150
    assert result.throughput == 75
    assert result.p50_ms == pytest.approx(75.5)
    assert result.p99_ms == pytest.approx(148.51)
    assert not result.problem


def test_a_load_that_fails_is_told_and_has_no_figures(exporting: PerfAnalyzer) -> None:
    load = Load(model="m", mode=Mode.OPEN, value=0.125, seconds=1)
    result = run_load(exporting, NOWHERE, Path("in.json"), load)
    assert result.throughput is None
    assert "Failed to maintain" in result.problem


@pytest.mark.parametrize(
    "told",
    [
        "No valid requests recorded within time interval. Please use a larger time window.",
        "failed to find the requested model version",
        "",
    ],
    ids=["no request", "no statistics", "an export without one"],
)
def test_a_load_too_short_to_see_a_request_is_put_on_for_longer(
    exporting: PerfAnalyzer, told: str
) -> None:
    """It sees some in windows of more than a second, as a slow server's are."""
    script = exporting.binary.read_text().splitlines()
    gives_up = f"print({told!r}); sys.exit(99)" if told else "requests = requests[:0]"
    place = next(i for i, line in enumerate(script) if line.startswith("experiment ="))
    window = 'int(arguments[arguments.index("--measurement-interval") + 1])'
    script.insert(place, f"if {window} < 1000: {gives_up}")
    exporting.binary.write_text("\n".join(script))
    load = Load(model="m", mode=Mode.CLOSED, value=1, seconds=0.5)
    assert run_load(exporting, NOWHERE, Path("in.json"), load).throughput == 75
    script[place] = f"if {window} < 10**9: {gives_up}"
    exporting.binary.write_text("\n".join(script))
    problem = run_load(exporting, NOWHERE, Path("in.json"), load).problem
    assert problem == (told or "no request was answered in the windows")


def test_the_one_on_path_comes_first(
    exporting: PerfAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(exporting.binary.parent), prepend=":")
    assert find_perf_analyzer() == PerfAnalyzer(binary=exporting.binary, version="9.9")


def test_none_that_starts_is_told_with_what_to_do(
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
    assert main(["bench", "server", "--bundle", str(BUNDLE), "--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "adprior bench server --fetch-perf-analyzer" in line


def test_what_pip_cannot_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(perf_analyzer, "_REQUIREMENTS", "no-such-file-anywhere @ file:///none.whl")
    with pytest.raises(EnvironmentProblemError, match="pip could not download"):
        perf_analyzer.fetch_perf_analyzer()
    assert not perf_analyzer.cache_directory().exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "nothing to measure"),
        (["--url", "localhost:1"], "--url needs --bundle"),
        (["--repository", "r", "--bundle", "b"], "--bundle goes with --url or alone"),
        (["--repository", "r", "--tuning", "t"], "--tuning goes with --bundle alone"),
        (["--repository", "r", "--sweep"], "--sweep needs --bundle"),
        (["--bundle", "b", "--tuning-output", "t"], "--tuning-output goes with --sweep"),
        (["--bundle", "b", "--p99-limit-ms", "9"], "--p99-limit-ms goes with --sweep"),
        (["--bundle", "b", "--server-pid", "9"], "--server-pid goes with --url"),
        (["--bundle", "b", "--client", "c.toml"], "--client goes with --url"),
        (["--bundle", "b", "--events", "e"], "--events and --columns go together"),
        (["--bundle", "b", "--profiles", "p"], "--profiles goes with --events"),
        (["--bundle", "b", "--shares", "0"], "--shares: found 0"),
        (["--bundle", "b", "--output", str(BUNDLE)], "exists and is no earlier report"),
        (["--bundle", "b", "--sweep", "--tuning-output", str(BUNDLE)], "is a directory"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "server", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_what_a_protected_server_wants_is_taken_from_the_clients_settings(tmp_path: Path) -> None:
    settings = tmp_path / "client.toml"
    (tmp_path / "token").write_text("a-token-of-the-tests")
    (tmp_path / "token").chmod(0o600)
    settings.write_text(
        f'tls_ca_file = "ca.pem"\ntoken_file = "{tmp_path}/token"\nkill_switch_file = "off"\n'
        'urls = ["elsewhere:1"]\n[metadata]\ntenant = "ads"\n'
    )
    connection = read_connection("host:8001", settings)
    assert connection.kill_switch_file is None  # nothing would be asked
    assert analyzer_options(connection) == [
        *("-u", "host:8001", "-i", "grpc", "--ssl-grpc-use-ssl", "true"),
        *("--ssl-grpc-root-certifications-file", str(Path("ca.pem").resolve())),
        *("-H", "triton-grpc-protocol-inference-key:a-token-of-the-tests", "-H", "tenant:ads"),
    ]
    assert analyzer_options(NOWHERE) == ["-u", "127.0.0.1:1", "-i", "grpc"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('tls_ca_file = "ca.pem"\ntls_server_name = "ads"', "found tls_server_name, which perf"),
        ("tls = true", "found TLS without tls_ca_file"),
        ("token = 7", "token: found int"),
    ],
)
def test_what_perf_analyzer_cannot_do_is_told(
    settings: str,
    told: str,
    exporting: PerfAnalyzer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(exporting.binary.parent), prepend=":")
    file = tmp_path / "client.toml"
    file.write_text(f'urls = ["host:1"]\n{settings}')
    command = ["--url", "host:1", "--bundle", str(BUNDLE), "--client", str(file)]
    assert main(["bench", "server", *command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def _snapshot(requests: int, seconds: float) -> Snapshot:
    work = ModelWork(
        requests=requests, executions=requests // 2, step_s=dict.fromkeys(STEPS, seconds)
    )
    return Snapshot(models={"m": work}, cpu_s={"tritonserver": seconds, "m": 3 * seconds})


def test_work_is_what_was_done_in_between() -> None:
    work = _snapshot(30, 0.5).since(_snapshot(10, 0.1))
    assert work.models["m"].requests == 20
    assert work.models["m"].step_ms()["queue"] == pytest.approx(20)
    assert work.cpu_s_per_request("m") == pytest.approx({"tritonserver": 0.02, "m": 0.06})
    assert _snapshot(10, 0.1).since(_snapshot(10, 0.1)).cpu_s_per_request("m") is None


def test_a_server_that_lost_a_process_is_not_measured() -> None:
    lost = Snapshot(models={"m": ModelWork()}, cpu_s={"tritonserver": 1.0})
    with pytest.raises(EnvironmentProblemError, match="processes changed"):
        lost.since(_snapshot(10, 0.1))


def _row(mode: Mode, value: float, throughput: float | None, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ROW_KEYS)
    row |= {"scenario": "live_ranking", "mode": str(mode), "concurrency_or_rate": value}
    row |= {"throughput": throughput, "p50_ms": 10 * value, "p95_ms": 20.0, "p99_ms": 30.0}
    row |= {
        "errors": 0,
        "without_figures": 0,
        "requests": 100,
        "cpu_s_per_request": 0.04,
        "ranges": {},
    }
    row |= {"cpu_s_by_process": {"tritonserver": 0.001, "tokenizer": 0.002}}
    row |= {"step_ms": {"tokenizer": dict.fromkeys(STEPS, 0.25)}, "batch_size": {"tokenizer": 1.5}}
    return row | more


class _CountingServer:
    """It fails one request of each load."""

    connection = NOWHERE

    def __init__(self) -> None:
        self._looks = 0

    def snapshot(self) -> Snapshot:
        self._looks += 1
        loads = self._looks // 2
        work = ModelWork(requests=150 * loads, failures=loads, step_s=dict.fromkeys(STEPS, 0.0))
        return Snapshot(models={MODELS[Scenario.RETRIEVAL]: work}, cpu_s=None)


def test_what_perf_analyzer_gives_up_is_no_error_of_the_server(exporting: PerfAnalyzer) -> None:
    bench = Bench(
        analyzer=exporting,
        server=cast("Server", _CountingServer()),
        workers=None,
        input_data=lambda _: Path("in.json"),
        progress=lambda: None,
    )
    # The stand-in answers 75 a second, and gives up at the rate of 0.125.
    plan = Plan(concurrencies=[1], shares=[0.125 / 75], seconds=1.0, rounds=2, users=1)
    closed, opened = measure_scenario(bench, Scenario.RETRIEVAL, plan)
    assert (closed["errors"], closed["without_figures"], closed["problem"]) == (2, 0, None)
    assert (opened["errors"], opened["without_figures"]) == (2, 2)
    assert "Failed to maintain requested inference load" in opened["problem"]


def test_saturation_is_the_best_closed_loop() -> None:
    rows = [
        _row(Mode.CLOSED, 1, 20.0),
        _row(Mode.CLOSED, 4, 25.0),
        _row(Mode.CLOSED, 8, None, errors=3),
        _row(Mode.OPEN, 90.0, 90.0),
    ]
    assert saturated_row(rows, Scenario.LIVE_RANKING) is rows[1]
    assert saturated_row(rows, Scenario.RETRIEVAL) is None


def test_a_report_is_written_with_its_plots(tmp_path: Path) -> None:
    rows = [
        _row(Mode.CLOSED, 1, 20.0, in_process_throughput=22.0),
        _row(Mode.CLOSED, 4, 25.0, in_process_throughput=23.0, ranges={"throughput": [24.0, 26.0]}),
        _row(Mode.OPEN, 12.5, 12.5, share_of_saturation=0.5),
        _row(
            *(Mode.CLOSED, 1, None),
            scenario="retrieval",
            errors=0,
            without_figures=2,
            problem="it saw nothing.",
        ),
    ]
    about = {
        "bundle_id": "0123456789ab", "perf_analyzer": "9.9", "users": "made up", "requests": 12,
        "seconds": 1.0, "rounds": 1,
        "machine": {"processor": "abacus", "cpus": 2, "load_average": 0.1, "onnxruntime": "1"},
    }  # fmt: skip
    text = show_report(make_report(rows, about), tmp_path / "report")
    assert "25.0 [24.0, 26.0]" in text
    told = " ".join(text.split())
    assert "12 different requests of users (made up); rounds: 1 of 1 s." in told
    assert text.splitlines()[-1] == f"All plots: in {tmp_path / 'report' / 'report.html'}"
    assert "Rounds without figures: retrieval, 1 in flight (2): it saw nothing." in told
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html", "report.json", "report.md", "throughput-live-ranking.png",
        "latency-live-ranking.png", "steps-live-ranking.png", "throughput-retrieval.png", "cpu.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "report" / "report.json").read_text())["data"]["rows"] == rows


def test_layouts_share_the_cpus_among_engines() -> None:
    for cpus in (1, 2, 6, 16):
        contracts, *shared = layouts(cpus)
        assert contracts[LLM_ENGINE] == model(LLM_ENGINE, Target.CPU).scaling
        pairs = [(each[LLM_ENGINE].instances, each[LLM_ENGINE].threads) for each in shared]
        assert (1, cpus) in pairs
        assert (cpus, 1) in pairs
        assert all(engines * threads <= cpus for engines, threads in pairs)


def _trial(engines: int, throughput: float, p99_ms: float | None, errors: int = 0) -> Trial:
    return Trial(
        tuning={LLM_ENGINE: Scaling(instances=engines)}, throughput=throughput, p50_ms=1.0,
        p99_ms=p99_ms, cpu_s_per_request=0.1, errors=errors,
    )  # fmt: skip


def test_the_best_is_the_fastest_of_those_below_the_limit() -> None:
    fast, alike, slow = _trial(1, 100, 90), _trial(2, 98, 50), _trial(3, 80, 20)
    broken = _trial(4, 200, 5, errors=1)
    silent = replace(_trial(5, 300, 5), without_figures=1)
    trials = [fast, alike, slow, broken, silent]
    assert recommend(trials, None) is alike
    assert recommend(trials, 30) is slow
    assert recommend(trials, 1) is alike  # none is below: the limit is told nothing
    assert recommend([broken], None) is broken


def test_why_a_trial_lacks_figures_is_below_its_table() -> None:
    silent = replace(_trial(2, 0.0, None), without_figures=3, problem="it saw nothing")
    best = _trial(1, 100, 90)
    *_, last = lines = sweep_table([best, silent], best).splitlines()
    assert last == "Loads without figures, row 2: it saw nothing"
    assert lines[1].endswith("*")
    assert silent.row()["errors"] == 0


def test_a_sweep_batches_around_the_best_layout() -> None:
    asked: list[Tuning] = []

    def measure(tuning: Tuning) -> list[dict[str, Any]]:
        asked.append(tuning)
        engine = tuning[LLM_ENGINE]
        throughput = 10.0 * engine.instances + 5 * engine.threads + engine.max_batch_size / 10
        return [_row(Mode.CLOSED, 1, throughput), _row(Mode.OPEN, 7.0, 7.0)]

    trials, best = sweep(2, 2, measure, None)
    engine = best.tuning[LLM_ENGINE]
    assert (engine.instances, engine.threads, engine.max_batch_size) == (2, 1, 16)
    assert len(asked) == 2 * len(trials)
    tried = [trial.tuning for trial in trials]
    assert all(setting in tried for setting in batchings(engine))
    assert best.p50_ms == 10
    assert best.p99_ms == 30


def test_a_log_without_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        read_requests(Bundle.open(BUNDLE), 3, tmp_path / "none.parquet", None, tmp_path / "m.toml")


def test_perf_analyzer_asks_this_machine_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inner.example")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    analyzer = PerfAnalyzer(binary=Path("/nowhere/perf_analyzer"), version="9.9")
    environment = analyzer.environment()
    assert environment["https_proxy"] == "http://proxy.example:3128"
    assert environment["no_grpc_proxy"].split(",")[:3] == [
        "inner.example",
        "localhost",
        "127.0.0.1",
    ]
    assert "https_proxy" not in analyzer.environment(use_proxy=False)
