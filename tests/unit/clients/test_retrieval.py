from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    BadAnswerError,
    ClientConfig,
    ClientError,
    DeadlineError,
    DeniedError,
    Event,
    InvalidArgumentError,
    RetrievalClient,
    UnavailableError,
    User,
)
from adprior_runtime import contract

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton

pytest_plugins = ("support.fake_triton",)

USER = User(
    profile={"city": "Łódź"},
    history=[Event(time="2024-05-30", action="purchase", advertiser="三星")],
    as_of="2024-05-31",
)


def test_a_forecast_comes_back(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        forecast = client.forecast(USER, k=3)
    assert [(a.advertiser_id, a.name, a.log_prob) for a in forecast.advertisers] == [
        (7, "Acme", -0.5),
        (2**40, "Żabka", -1.5),
        (3, "三星", -3.0),
    ]
    assert (forecast.exact, forecast.missing_mass, forecast.bundle_id) == (True, 0.125, "bundle-1")


def test_what_is_sent_is_one_user_in_one_row(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        client.forecast(USER, k=3, excluded_advertiser_ids=[5, 9])
    [(model, asked)] = triton.calls
    assert model == contract.ADVERTISER_RETRIEVAL
    assert {name: values.shape for name, values in asked.items()} == {
        contract.USER_CONTEXT: (1, 1),
        contract.TOP_K: (1, 1),
        contract.EXCLUDED_ADVERTISER_IDS: (1, 2),
    }
    assert json.loads(asked[contract.USER_CONTEXT].item())["profile"] == {"city": "Łódź"}
    assert asked[contract.TOP_K].tolist() == [[3]]
    assert asked[contract.EXCLUDED_ADVERTISER_IDS].tolist() == [[5, 9]]


def test_what_is_not_asked_for_is_not_sent(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        client.forecast({"as_of": "2024-05-31"})
        client.forecast({"as_of": "2024-05-31"}, k=5)
    assert set(triton.calls[0][1]) == {contract.USER_CONTEXT}
    assert set(triton.calls[1][1]) == {contract.USER_CONTEXT, contract.TOP_K}


def test_an_empty_forecast_is_a_forecast(triton: FakeTriton) -> None:
    empty: dict[str, Any] = {
        contract.ADVERTISER_IDS: np.zeros((1, 0), dtype=np.int64),
        contract.LOG_PROBS: np.zeros((1, 0), dtype=np.float32),
        contract.ADVERTISER_NAMES: np.zeros((1, 0), dtype=np.object_),
    }
    answer = triton.answer
    triton.answer = lambda model, asked: answer(model, asked) | empty
    with RetrievalClient(triton.config()) as client:
        assert client.forecast(USER).advertisers == ()


def test_threads_may_share_a_client(triton: FakeTriton) -> None:
    found: list[int] = []
    with RetrievalClient(triton.config(deadline_s=30)) as client:

        def ask() -> None:
            found.append(len(client.forecast(USER).advertisers))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.NOT_FOUND, UnavailableError),
        (grpc.StatusCode.INTERNAL, BadAnswerError),
        (grpc.StatusCode.PERMISSION_DENIED, DeniedError),
    ],
)
def test_a_status_becomes_an_error_of_one_line(
    triton: FakeTriton, status: grpc.StatusCode, error: type[ClientError]
) -> None:
    triton.status = status
    with RetrievalClient(triton.config()) as client, pytest.raises(ClientError) as caught:
        client.forecast(USER)
    assert type(caught.value) is error
    assert str(caught.value) == f"advertiser_retrieval at {triton.url}: the server's reason"


def test_a_slow_server_meets_the_deadline(triton: FakeTriton) -> None:
    triton.hold = True
    with (
        RetrievalClient(triton.config(deadline_s=0.2)) as client,
        pytest.raises(DeadlineError, match=r"no answer within 0\.(2|1\d+) s"),
    ):
        client.forecast(USER)


def test_nobody_there_is_unavailable() -> None:
    config = ClientConfig(urls=("127.0.0.1:1",), fail_open=False)
    with RetrievalClient(config) as client, pytest.raises(UnavailableError):
        client.forecast(USER)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (contract.LOG_PROBS, np.zeros((1, 3)), r"found FP64\[1, 3\], expected FP32\[1, n\]"),
        (contract.LOG_PROBS, np.zeros(3, dtype=np.float32), r"found FP32\[3\], expected"),
        (contract.EXACT, np.array([[True, True]]), r"found BOOL\[1, 2\], expected BOOL\[1, 1\]"),
    ],
)
def test_an_answer_off_the_contract_is_a_bad_answer(
    triton: FakeTriton, name: str, values: Any, message: str
) -> None:
    answer = triton.answer
    triton.answer = lambda model, asked: answer(model, asked) | {name: values}
    with (
        RetrievalClient(triton.config()) as client,
        pytest.raises(BadAnswerError, match=f"{name}: {message}"),
    ):
        client.forecast(USER)


def test_an_answer_without_a_tensor_is_a_bad_answer(triton: FakeTriton) -> None:
    triton.answer = lambda _model, _asked: {}
    with (
        RetrievalClient(triton.config()) as client,
        pytest.raises(BadAnswerError, match="missing in"),
    ):
        client.forecast(USER)


def test_what_the_caller_got_wrong_is_never_sent(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        with pytest.raises(InvalidArgumentError, match="k: found 0"):
            client.forecast(USER, k=0)
        with pytest.raises(InvalidArgumentError, match="excluded_advertiser_ids: found a str"):
            client.forecast(USER, excluded_advertiser_ids=["x"])  # type: ignore[list-item]
    assert triton.calls == []


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost:8001", ":8001", "host:", 8001])
def test_a_wrong_address_is_refused(url: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"url: found .* expected HOST:PORT"):
        RetrievalClient(url)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf"), True, "2"])
def test_a_wrong_deadline_is_refused(timeout_s: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="deadline_s: found"):
        RetrievalClient(ClientConfig(urls=("localhost:8001",), deadline_s=timeout_s))


def test_a_closed_client_says_so(triton: FakeTriton) -> None:
    client = RetrievalClient(triton.config())
    client.close()
    client.close()
    with pytest.raises(ClientError, match="the client was closed"):
        client.forecast(USER)
