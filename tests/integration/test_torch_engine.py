"""The torch engine on a real tritonserver, beside ONNX Runtime: same model, same head."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from adprior_bulk.run.bundle_forecaster import BundleSettings
from adprior_bulk.run.user_forecaster import Forecasted, Task
from adprior_client import Forecast, RankingClient, RetrievalClient
from adprior_client.errors import ClientError
from adprior_client.user_context import CheckedContext, user_to_json
from adprior_runtime.cli import main
from adprior_runtime.prompt.context import parse_context
from faults.supervised_server import SupervisedServer
from support.data_set import IDS, user
from support.servers import (
    Served,
    build_repository,
    choose_ports,
    connect,
    port_options,
    serve,
    start_server,
)

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def torch_repository(
    bundle: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The trained checkpoint on torch, with the head that was fitted on ONNX Runtime."""
    repository = tmp_path_factory.mktemp("torch") / "repository"
    build = ["build", "--engine", "torch", "--forecast-k", "10", "--beam-width", "8"]
    source = ["--checkpoint", str(checkpoint), "--head", str(bundle / "head.onnx")]
    output = ["--save-bundle", str(repository.parent / "bundle"), "--output", str(repository)]
    assert main([*build, *source, *output]) == 0
    return repository


@pytest.fixture(scope="module")
def torch_served(torch_repository: Path) -> Iterator[Served]:
    """A server of that repository."""
    with serve(start_server(torch_repository)) as running:
        yield running


@pytest.mark.parametrize("events", [0, 5, 30])
def test_forecasts_and_rankings_equal_those_of_onnx_runtime(
    torch_served: Served, retrieval: RetrievalClient, ranking: RankingClient, events: int
) -> None:
    expected = retrieval.forecast(user(events))
    found = torch_served.retrieval.forecast(user(events))
    assert found.exact
    assert [a.advertiser_id for a in found.advertisers] == [
        a.advertiser_id for a in expected.advertisers
    ]
    mine, theirs = ([a.log_prob for a in f.advertisers] for f in (found, expected))
    np.testing.assert_allclose(mine, theirs, atol=1e-3)
    logits = np.linspace(-3, 1, len(IDS)).tolist()
    mine, theirs = (
        client.score(user(events), [*IDS.values()], logits).logits.tolist()
        for client in (torch_served.ranking, ranking)
    )
    np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_many_users_at_once_get_the_answers_they_get_alone(torch_served: Served) -> None:
    users = [user(events) for events in range(12)]
    alone = [torch_served.retrieval.forecast(each) for each in users]
    with ThreadPoolExecutor(12) as threads:
        for _ in range(3):
            together = [*threads.map(torch_served.retrieval.forecast, users)]
            for mine, theirs in zip(together, alone, strict=True):
                assert mine.exact
                ids = [[a.advertiser_id for a in each.advertisers] for each in (mine, theirs)]
                assert ids[0] == ids[1]
                mine_scores, their_scores = (
                    [a.log_prob for a in each.advertisers] for each in (mine, theirs)
                )
                np.testing.assert_allclose(mine_scores, their_scores, atol=1e-3)


def test_a_bulk_run_joins_users_and_answers_as_the_server_does(
    torch_repository: Path, torch_served: Served
) -> None:
    users = [user(events) for events in range(12)]
    tasks = [
        Task(user_id=str(number), raw=CheckedContext(raw), context=parse_context(raw))
        for number, raw in enumerate(map(user_to_json, users))
    ]
    settings = BundleSettings(bundle=torch_repository.parent / "bundle", top_k=None)
    found = {task.user_id: answer for task, answer in settings.open().forecast(tasks)}
    assert len(found) == len(users)
    for number, each in enumerate(users):
        expected, answer = torch_served.retrieval.forecast(each), found[str(number)]
        assert isinstance(answer, Forecasted)
        assert answer.advertiser_ids == [a.advertiser_id for a in expected.advertisers]
        log_probs = [a.log_prob for a in expected.advertisers]
        np.testing.assert_allclose(answer.log_probs, log_probs, atol=1e-3)


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGSTOP])
def test_calls_in_flight_end_when_the_engines_process_dies_or_stands_still(
    torch_repository: Path, name: signal.Signals
) -> None:
    """Their answers are sent after `execute` has returned, so Triton itself never misses them."""
    with SupervisedServer(torch_repository) as server, connect(server.url) as (retrieval, _):
        failures, stopping = list[float](), threading.Event()

        def call() -> None:
            while not stopping.is_set():
                began = time.monotonic()
                try:
                    retrieval.forecast(user(30))
                except ClientError:
                    failures.append(time.monotonic() - began)
                    time.sleep(0.05)

        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(call) for _ in range(8)]
            time.sleep(0.5)
            processes = server.stubs("llm_engine")
            for process in processes:
                process.send_signal(name)
            time.sleep(2.5)
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            assert _await_forecast(server.url).exact
            stopping.set()
            for each in calls:
                each.result(timeout=30)
        assert failures
        assert max(failures) < 10


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_gpu_that_is_not_there_is_one_line(
    torch_repository: Path,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    if engine == "torch" and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    repository = (
        torch_repository if engine == "torch" else build_repository(bundle, tmp_path / "repository")
    )
    capsys.readouterr()
    ports = port_options(choose_ports())
    assert main(["serve", "--repository", str(repository), "--device", "cuda", *ports]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    reason = {
        "torch": "torch .* finds no GPU",
        "onnx": "the engine onnx runs on the CPU; build the bundle with --engine torch",
    }
    assert re.match(f"adprior serve: model llm_engine: device cuda: {reason[engine]}", line)


def _await_forecast(url: str) -> Forecast:
    """Return the first forecast of new clients within 30 s."""
    deadline = time.monotonic() + 30
    while True:
        with connect(url) as (retrieval, _):
            try:
                return retrieval.forecast(user(5))
            except ClientError:
                assert time.monotonic() < deadline
        time.sleep(0.2)
