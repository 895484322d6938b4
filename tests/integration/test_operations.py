"""A real server's metrics, and the commands of docs/operations.md."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from adprior_client import RankingClient, RetrievalClient
from adprior_client.rollout.metrics_page import BINS, TIMES, Field, parse_page
from adprior_runtime import contract
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from adprior_runtime.triton.metrics import METRICS, Kind, Metric
from integration.metrics_page import MetricsPage, await_page, read_page, read_settled
from support.data_set import user
from support.monitoring import PAGE, RULES, expressions, find_tool, series_names
from support.paths import ROOT
from support.processes import run
from support.raw_requests import context_tensor, infer_context, make_inputs

pytestmark = pytest.mark.triton

TRITON_NAME = re.compile(r"\bnv_\w+")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
HISTOGRAMS = [metric for metric in METRICS if metric.kind is Kind.HISTOGRAM]
PORTS = ("8000", "8001", "8002", "8010", "8011", "8012")


def test_the_page_shows_every_metric_with_all_its_series(server: TritonServer) -> None:
    page = read_settled(server)
    for metric in METRICS:
        for name in series_names(metric):
            series = [labels for each, labels, _ in page.samples if each == name]
            assert {labels["model"] for labels in series} == set(metric.models)
            if metric.label and metric.values:
                assert {labels[metric.label] for labels in series} == set(metric.values)
        assert f"# TYPE {metric.name} {metric.kind}\n" in page.text
        assert f"# HELP {metric.name} {metric.description}\n" in page.text


def test_triton_has_the_metrics_that_dashboard_alerts_and_page_use(
    server: TritonServer,
) -> None:
    texts = [*expressions(), *(rule["expr"] for rule in RULES), PAGE]
    names = {name for text in texts for name in TRITON_NAME.findall(text)} - {"nv_"}
    names -= {"nv_trt_llm_request_metrics"}  # only a server with TensorRT-LLM has it: not run here
    assert len(names) > 8
    assert names <= read_page(server).names


def test_promtool_accepts_the_metrics(server: TritonServer) -> None:
    lines = [line + "\n" for line in read_page(server).text.splitlines() if "adprior_" in line]
    done = run(find_tool("promtool"), "check", "metrics", input="".join(lines))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_requests_are_counted(
    server: TritonServer, retrieval: RetrievalClient, ranking: RankingClient
) -> None:
    before = read_settled(server)
    forecasts = [retrieval.forecast(user(events)) for events in (0, 3, 30)]
    live = ranking.score(user(3), [100, 107, -1], [0, 0, 0])
    ranking.score(forecasts[1], [100, 107, -1], [0, 0, 0])
    assert live.forecast is not None
    answers = [*forecasts, live.forecast]
    with pytest.raises(InferenceServerException):
        infer_context(server.grpc_address, b"{")

    def grown(page: MetricsPage, name: str, **labels: str) -> float:
        return page.total(name, **labels) - before.total(name, **labels)

    def is_complete(page: MetricsPage) -> bool:
        return (
            grown(page, "adprior_answers_total", model=contract.ADVERTISER_DECODER) == 4
            and grown(page, "adprior_answers_total", model=contract.PRIOR_HEAD) == 2
            and grown(page, "adprior_missing_mass_ratio_count") == 4
            and grown(page, "adprior_events_total") == 36
            and grown(page, "adprior_invalid_requests_total", reason="not_json") == 1
            and grown(page, "adprior_extended_tokens_total") > 0
        )

    page = await_page(server, is_complete)
    assert grown(page, "adprior_candidates_total") == 6
    assert grown(page, "adprior_candidates_total", status="not_in_catalogue") == 2
    exact = sum(forecast.exact for forecast in answers)
    assert (
        grown(page, "adprior_answers_total", model=contract.ADVERTISER_DECODER, exact="true")
        == exact
    )
    mass = sum(forecast.missing_mass for forecast in answers)
    assert grown(page, "adprior_missing_mass_ratio_sum") == pytest.approx(mass, rel=1e-4)
    assert grown(page, "adprior_forecast_share_total") == pytest.approx(4)
    assert page.total("adprior_forecast_drift_psi") > 0
    assert grown(page, "adprior_failed_requests_total") == 0


def test_a_rollout_reads_the_page(server: TritonServer, retrieval: RetrievalClient) -> None:
    before, bundle_id = parse_page(read_settled(server).text)
    forecasts = [retrieval.forecast(user(events)) for events in (0, 3, 30)]
    added = parse_page(read_settled(server).text)[0] - before
    assert {forecast.bundle_id for forecast in forecasts} == {bundle_id}
    assert added[Field.ANSWERED] == added[Field.FORECASTS] == 3
    assert added[Field.EXACT] == sum(forecast.exact for forecast in forecasts)
    assert added[Field.FAILED] == added[Field.INVALID] == 0
    assert added[Field.DURATION_US] > 0
    assert added[BINS].sum() == pytest.approx(3)
    assert added[TIMES][-1] == 3
    assert (np.diff(added[TIMES]) >= 0).all()
    with pytest.raises(InferenceServerException):
        infer_context(server.grpc_address, b"{")
    refused = parse_page(read_settled(server).text)[0] - before - added
    assert refused[Field.INVALID] == 1
    assert refused[Field.FAILED] in {1, 2}  # the embedded tritonserver counts such a failure twice


def test_the_alert_of_failing_requests_counts_each_request_once(
    server: TritonServer, retrieval: RetrievalClient
) -> None:
    def count() -> float:
        return read_settled(server).without_forecast()

    before = count()
    retrieval.forecast(user(3))
    for _ in range(3):
        with pytest.raises(InferenceServerException):
            infer_context(server.grpc_address, b"{")
    assert count() == before
    tensors = {contract.USER_CONTEXT: context_tensor(user(3))}
    inputs = make_inputs(contract.ADVERTISER_RETRIEVAL, tensors)
    with InferenceServerClient(server.grpc_address) as connection:
        connection.infer(contract.TOKENIZER, make_inputs(contract.TOKENIZER, tensors))
        assert count() == before
        for _ in range(2):
            with pytest.raises(InferenceServerException):  # its time is over in the queue
                connection.infer(contract.ADVERTISER_RETRIEVAL, inputs, timeout=1)
    assert count() == before + 2


def test_the_pages_commands_run(tiny_bundle: Path, tmp_path: Path) -> None:
    find_tool("curl")
    find_tool("promtool")
    script = "\n".join(BLOCKS).replace("/srv/adprior", str(tmp_path))
    script = script.replace("demo/bundle", str(tiny_bundle))
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    script = re.sub(r"\b80[01][0-2]\b", lambda found: ports[found[0]], script)
    script = re.sub(r"(--log-file \S*blue\S*)", rf"\1 {_port_options(ports)}", script)
    with subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail", "-c", f"{script}\nkill %2\nwait %2"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 0, output + errors
    assert output.count("nothing found wrong") == 2
    assert output.count("adprior: ready") == 2
    assert output.count("SUCCESS") >= 4
    *first, blue, green = re.findall(r'bundle_id="(\w+)"', output)
    assert set(first) == {blue} != {green}
    assert re.findall(r"^Bundle: (\w+)$", output, re.MULTILINE) == [green, green]


def _port_options(ports: dict[str, str]) -> str:
    """Return other ports for blue: the page gives it the default ports, which may be in use."""
    names = {"http": "8000", "grpc": "8001", "metrics": "8002"}
    return " ".join(f"--{name}-port {ports[port]}" for name, port in names.items())


@pytest.mark.parametrize("histogram", HISTOGRAMS, ids=lambda each: each.name)
def test_a_histogram_has_all_buckets_and_the_last_equals_its_count(
    server: TritonServer, histogram: Metric
) -> None:
    page = read_settled(server)
    buckets = page.by_label(f"{histogram.name}_bucket", "le")
    assert buckets["+Inf"] == page.total(f"{histogram.name}_count")
    assert sorted(map(float, buckets)) == pytest.approx([*histogram.buckets, math.inf])
