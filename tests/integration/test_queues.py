"""Triton's queues: their bounds, priorities, and no wait without a reason."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from adprior_client import RankingClient, RetrievalClient
from adprior_runtime import contract
from adprior_runtime.contract import Priority
from adprior_runtime.server.tritonserver import TritonServer
from integration.metrics_page import read_settled
from support.data_set import user
from support.paths import DEMO
from support.raw_requests import context_tensor, make_inputs
from support.servers import build_repository, start_server

pytestmark = pytest.mark.triton

ENGINE = Path(contract.LLM_ENGINE) / "configs" / "cpu.pbtxt"
HEAD = Path(contract.PRIOR_HEAD) / "config.pbtxt"
FULL = "maximum queue size"
LATE = "timeout expired"
WAITING = 128
"""Bulk requests: several batches of the engine."""
LONG_WAIT_S = 0.45
"""Triton's bounded queue checks every half second whether an instance is free."""


def _inputs(model: str, context: bytes) -> list[Any]:
    tensors = {
        contract.USER_CONTEXT: context_tensor(context),
        contract.CANDIDATE_ADVERTISER_IDS: [100, 107, 114],
        contract.BASE_LOGITS: [0.0, 0.0, 0.0],
        contract.ADVERTISER_IDS: [100, 107],
        contract.LOG_PROBS: [-2.0, -2.0],
        contract.MISSING_MASS: [0.5],
    }
    return make_inputs(model, tensors)


class _Crowd:
    """Concurrent requests; records the order in which they end, and their outcomes."""

    def __init__(self, server: TritonServer) -> None:
        self.ended: list[tuple[str, str]] = []
        self._client = triton.InferenceServerClient(server.grpc_address)
        self._sent = 0
        self._count = threading.Semaphore(0)

    def send(self, tag: str, model: str, context: bytes, priority: int) -> None:
        self._sent += 1
        inputs = _inputs(model, context)
        self._client.async_infer(model, inputs, partial(self._note, tag), priority=priority)

    def wait(self) -> list[tuple[str, str]]:
        for _ in range(self._sent):
            assert self._count.acquire(timeout=60)
        self._client.close()
        return self.ended

    def _note(self, tag: str, result: Any, error: Any) -> None:
        outcome = "answered" if error is None else f"{error.status()} {error.message().lower()}"
        self.ended.append((tag, outcome))
        self._count.release()


@pytest.fixture(scope="module")
def narrow(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server whose engine and head queue one request, and bulk work for a millisecond."""
    repository = build_repository(tiny_bundle, tmp_path_factory.mktemp("narrow") / "repository")
    bound = f"max_queue_size: {contract.MAX_QUEUE_SIZE}"
    timeout = f"default_timeout_microseconds: {contract.BULK_QUEUE_TIMEOUT_US}"
    for file in (ENGINE, HEAD):
        text = (repository / file).read_text()
        assert bound in text
        assert timeout in text
        text = text.replace(bound, "max_queue_size: 1", 1)  # the bound of all work but bulk
        text = text.replace(timeout, "default_timeout_microseconds: 1000")
        (repository / file).write_text(text)
    with start_server(repository) as server:
        yield server


@pytest.mark.parametrize(
    ("model", "priority", "message"),
    [
        (contract.ADVERTISER_RETRIEVAL, Priority.RETRIEVAL, FULL),
        (contract.ADVERTISER_RANKING, Priority.RANKING, FULL),
        (contract.PRIOR_HEAD, Priority.RANKING, FULL),
        (contract.ADVERTISER_RETRIEVAL, 0, FULL),
        (contract.ADVERTISER_RETRIEVAL, Priority.BULK, LATE),
    ],
)
def test_a_full_queue_and_a_queue_timeout_refuse_requests(
    narrow: TritonServer, model: str, priority: int, message: str
) -> None:
    context = (DEMO / "users" / "dog_owner.json").read_bytes()
    before = read_settled(narrow).without_forecast()
    crowd = _Crowd(narrow)
    for number in range(128):
        crowd.send(str(number), model, context, priority)
    refused = [outcome for _, outcome in crowd.wait() if outcome != "answered"]
    assert 0 < len(refused) < 128
    lost = 0 if model == contract.PRIOR_HEAD else len(refused)
    assert read_settled(narrow).without_forecast() == before + lost
    for outcome in refused:
        assert outcome.startswith("StatusCode.UNAVAILABLE")
        assert message in outcome


@pytest.mark.parametrize(
    ("model", "priority", "is_first"),
    [
        (contract.ADVERTISER_RANKING, Priority.RANKING, True),
        (contract.ADVERTISER_RETRIEVAL, Priority.RETRIEVAL, True),
        (contract.ADVERTISER_RANKING, Priority.BULK, False),
    ],
)
def test_bulk_work_waits_behind_other_requests_in_ensembles(
    server: TritonServer, model: str, priority: Priority, *, is_first: bool
) -> None:
    context = json.dumps(user(30)).encode()
    crowd = _Crowd(server)
    for number in range(WAITING):
        crowd.send(str(number), contract.ADVERTISER_RETRIEVAL, context, Priority.BULK)
    crowd.send("late", model, context, priority)
    ended = crowd.wait()
    assert {outcome for _, outcome in ended} == {"answered"}
    overtaken = WAITING - [tag for tag, _ in ended].index("late")
    # The last request may still end before a batch that another instance has begun.
    assert (overtaken > 2 * contract.MAX_BATCH_SIZE) == is_first


def test_a_bounded_queue_does_not_delay_requests_to_a_free_instance(
    retrieval: RetrievalClient, ranking: RankingClient
) -> None:
    forecast = retrieval.forecast(user(0))

    def rank(_: int) -> float:
        began = time.perf_counter()
        ranking.score(forecast, candidates=[100, 101], base_logits=[-3, -3])
        return time.perf_counter() - began

    with ThreadPoolExecutor(4) as pool:
        latencies = list(pool.map(rank, range(600)))
    # With a single instance behind the queue, about 40 calls waited for its next check.
    assert sum(seconds > LONG_WAIT_S for seconds in latencies) < 6
