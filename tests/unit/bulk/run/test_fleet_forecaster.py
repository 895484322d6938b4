from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from adprior_bulk.run.fleet_forecaster import FleetSettings, ask_bundle_id
from adprior_bulk.run.user_forecaster import Answer, Forecasted, Refused, Task
from adprior_client import ClientError
from adprior_client.user_context import CheckedContext
from adprior_runtime import contract
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError
from adprior_runtime.prompt.context import UserContext
from support.fake_triton import FakeTriton, forecast_tensors, interest_tensors
from support.server_names import write_servers

CONTEXT = UserContext(profile={}, history=(), as_of=datetime(2024, 5, 1, tzinfo=UTC))
RAW = b'{"as_of":"2024-05-01"}'
TASKS = [
    Task(user_id=f"u{n}", raw=CheckedContext(RAW + b" " * n), context=CONTEXT) for n in (5, 0, 3)
]


def _ask(server: FakeTriton, tasks: list[Task], **settings: Any) -> dict[str, Answer]:
    settings.setdefault("client", server.config())
    with closing(FleetSettings(top_k=2, bundle_id="bundle-1", **settings).open()) as fleet:
        return {task.user_id: answer for task, answer in fleet.forecast(tasks)}


def _two(_model: str, _asked: Any) -> Any:
    """Answer with two advertisers."""
    tensors = forecast_tensors()
    several = (contract.ADVERTISER_IDS, contract.LOG_PROBS, contract.ADVERTISER_NAMES)
    return tensors | {name: tensors[name][:, :2] for name in several}


def test_every_user_is_sent_once_the_shortest_context_first(triton: FakeTriton) -> None:
    triton.answer = _two
    answers = _ask(triton, TASKS, concurrency=1)
    assert [call[1][contract.USER_CONTEXT][0, 0] for call in triton.calls] == [
        RAW,
        RAW + b"   ",
        RAW + b"     ",
    ]
    assert answers.keys() == {"u5", "u0", "u3"}
    assert answers["u0"] == Forecasted(
        advertiser_ids=[7, 2**40],
        log_probs=[-0.5, -1.5],
        exact=True,
        missing_mass=0.125,
        bundle_id="bundle-1",
    )


@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_a_busy_or_absent_server_is_asked_again(triton: FakeTriton, status: str) -> None:
    triton.answer, triton.status, triton.failures = _two, grpc.StatusCode[status], 4
    answers = _ask(triton, TASKS[:1], concurrency=1)
    assert isinstance(answers["u5"], Forecasted)
    assert len(triton.calls) == 5


def test_a_refused_context_is_not_sent_again(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INVALID_ARGUMENT
    (answer,) = _ask(triton, TASKS[:1]).values()
    assert isinstance(answer, Refused)
    assert answer.code == "INVALID_ARGUMENT"
    assert len(triton.calls) == 1


def test_a_user_on_whom_the_server_fails_is_refused(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    (answer,) = _ask(triton, TASKS[:1]).values()
    assert isinstance(answer, Refused)
    assert answer.code == "INTERNAL"
    assert len(triton.calls) == 3


def _other_bundle(_model: str, _asked: Any) -> Any:
    return _two(_model, _asked) | {contract.BUNDLE_ID: np.array([[b"other"]], dtype=np.object_)}


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, _two, "no answer within 0.3 s"),
        (None, _other_bundle, "the fleet serves bundle other, this run expects bundle-1"),
        (grpc.StatusCode.PERMISSION_DENIED, _two, "advertiser_retrieval at"),
    ],
)
def test_the_run_stops_when_patience_ends(
    triton: FakeTriton, status: Any, answer: Callable[..., Any], message: str
) -> None:
    triton.answer, triton.status = answer, status
    began = time.monotonic()
    with pytest.raises(EnvironmentProblemError, match=message):
        _ask(triton, TASKS, patience_s=0.3)
    assert time.monotonic() - began < 30


def test_a_user_without_any_answer_does_not_stop_the_others(triton: FakeTriton) -> None:
    poisoned = TASKS[0]

    def silent_on_one(model: str, asked: Any) -> Any:
        if asked[contract.USER_CONTEXT][0, 0] == poisoned.raw:
            time.sleep(0.3)
        return _two(model, asked)

    triton.answer = silent_on_one
    client = replace(triton.config(), deadline_s=0.1)
    answers = _ask(triton, TASKS, client=client, patience_s=2.0, concurrency=1)
    refused = answers.pop(poisoned.user_id)
    assert isinstance(refused, Refused)
    assert refused.code == "DEADLINE_EXCEEDED"
    assert {type(answer) for answer in answers.values()} == {Forecasted}


@pytest.fixture
def second() -> Iterator[FakeTriton]:
    fake = FakeTriton().start()
    yield fake
    fake.stop()


def test_all_servers_must_serve_one_bundle(triton: FakeTriton, second: FakeTriton) -> None:
    assert ask_bundle_id(triton.config()) == "bundle-1"
    both = replace(triton.config(), urls=(triton.url, second.url))
    assert ask_bundle_id(both) == "bundle-1"
    second.answer = _other_bundle
    with pytest.raises(EnvironmentProblemError, match="the servers serve different bundles"):
        ask_bundle_id(both)
    second.status = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(ClientError):
        ask_bundle_id(both)


def test_every_server_of_a_file_must_serve_the_bundle(
    triton: FakeTriton, second: FakeTriton, tmp_path: Path
) -> None:
    url = write_servers(tmp_path / "servers", [triton.url, second.url])
    listed = replace(triton.config(), urls=(url,), discovery_interval_s=0.01)
    assert ask_bundle_id(listed) == "bundle-1"
    triton.answer = second.answer = _two
    assert {type(answer) for answer in _ask(triton, TASKS, client=listed).values()} == {Forecasted}
    second.answer = _other_bundle
    with pytest.raises(EnvironmentProblemError, match=f"{second.url}: "):
        ask_bundle_id(listed)


def test_interests_of_a_fleet_are_kept(triton: FakeTriton) -> None:
    triton.answer = lambda model, asked: _two(model, asked) | interest_tensors()
    assert ask_bundle_id(triton.config(), 2, 2) == "bundle-1"
    answer = _ask(triton, TASKS[:1], interest_k=2)["u5"]
    assert isinstance(answer, Forecasted)
    assert (answer.interest_ids, answer.interest_log_probs) == ([12, 11], [-0.25, -2.0])


def test_a_fleet_without_interests_is_found_before_the_run(triton: FakeTriton) -> None:
    none = {name: values[:, :0] for name, values in interest_tensors().items()}
    triton.answer = lambda model, asked: _two(model, asked) | none
    with pytest.raises(InvalidInputError, match="serves a bundle without interests"):
        ask_bundle_id(triton.config(), 2, 2)


def test_a_top_k_that_servers_refuse_is_found_before_the_run(triton: FakeTriton) -> None:
    """Otherwise every user of the run would become a dead letter."""
    assert ask_bundle_id(triton.config(), 300) == "bundle-1"
    assert triton.calls[-1][1][contract.TOP_K].item() == 300
    triton.status, triton.message = grpc.StatusCode.INVALID_ARGUMENT, "TOP_K: found 300"
    with pytest.raises(ClientError, match="TOP_K: found 300"):
        ask_bundle_id(triton.config(), 300)
