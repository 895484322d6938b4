"""Where requests wait: bounds, made small enough to be met, and who goes first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from adprior_runtime import contract
from adprior_runtime.cli import main
from adprior_runtime.contract import Priority
from adprior_runtime.server.tritonserver import TritonServer
from support.data_set import user
from support.raw_requests import context_tensor, make_inputs
from support.servers import start_server

pytestmark = pytest.mark.triton

DEMO = Path(__file__).parents[2] / "demo"
ENGINE = Path(contract.LLM_ENGINE) / "configs" / f"{contract.CPU_CONFIG_NAME}.pbtxt"
HEAD = Path(contract.PRIOR_HEAD) / "config.pbtxt"
FULL = "maximum queue size"
LATE = "timeout expired"
WAITING = 128
"""Several batches of the engine."""


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
    """Requests sent at once; notes in which order they end, and how."""

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
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The engine and the head let one wait, and bulk work for a millisecond."""
    repository = tmp_path_factory.mktemp("narrow") / "repository"
    assert main(["build", "--bundle", str(DEMO / "bundle"), "--output", str(repository)]) == 0
    bound = f"max_queue_size: {contract.MAX_QUEUE_SIZE}"
    late = f"default_timeout_microseconds: {contract.BULK_QUEUE_TIMEOUT_US}"
    for file in (ENGINE, HEAD):
        text = (repository / file).read_text()
        assert bound in text
        assert late in text
        text = text.replace(bound, "max_queue_size: 1", 1)  # the first is everyone's but bulk's
        text = text.replace(late, "default_timeout_microseconds: 1000")
        (repository / file).write_text(text)
    with start_server(repository) as server:
        yield server


@pytest.mark.parametrize(
    ("model", "priority", "told"),
    [
        (contract.ADVERTISER_RETRIEVAL, Priority.RETRIEVAL, FULL),
        (contract.ADVERTISER_RANKING, Priority.RANKING, FULL),
        (contract.PRIOR_HEAD, Priority.RANKING, FULL),
        (contract.ADVERTISER_RETRIEVAL, 0, FULL),
        (contract.ADVERTISER_RETRIEVAL, Priority.BULK, LATE),
    ],
)
def test_who_would_wait_too_long_is_refused(
    narrow: TritonServer, model: str, priority: int, told: str
) -> None:
    context = json.dumps(json.loads((DEMO / "users" / "dog_owner.json").read_text())).encode()
    crowd = _Crowd(narrow)
    for number in range(128):
        crowd.send(str(number), model, context, priority)
    refused = [outcome for _, outcome in crowd.wait() if outcome != "answered"]
    assert 0 < len(refused) < 128
    for outcome in refused:
        assert outcome.startswith("StatusCode.UNAVAILABLE")
        assert told in outcome


@pytest.mark.parametrize(
    ("model", "priority", "goes_first"),
    [
        (contract.ADVERTISER_RANKING, Priority.RANKING, True),
        (contract.ADVERTISER_RETRIEVAL, Priority.RETRIEVAL, True),
        (contract.ADVERTISER_RANKING, Priority.BULK, False),
    ],
)
def test_bulk_work_lets_others_go_first_in_ensembles_too(
    server: TritonServer, model: str, priority: Priority, *, goes_first: bool
) -> None:
    context = json.dumps(user(30)).encode()
    crowd = _Crowd(server)
    for number in range(WAITING):
        crowd.send(str(number), contract.ADVERTISER_RETRIEVAL, context, Priority.BULK)
    crowd.send("late", model, context, priority)
    ended = crowd.wait()
    assert {outcome for _, outcome in ended} == {"answered"}
    overtaken = WAITING - [tag for tag, _ in ended].index("late")
    # Beside a batch that the other engine is at, the last in the queue may be done first.
    assert (overtaken > 2 * contract.MAX_BATCH_SIZE) == goes_first
