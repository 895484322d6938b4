from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    BadAnswerError,
    Event,
    Interest,
    InvalidArgumentError,
    Reason,
    RetrievalClient,
    User,
)
from adprior_runtime import contract
from support.client_calls import assert_harmless
from support.fake_triton import interest_tensors

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton


USER = User(
    profile={"city": "Łódź"},
    history=[Event(time="2024-05-30", action="purchase", advertiser="三星")],
    as_of="2024-05-31",
)


def test_a_forecast_is_returned(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        forecast = client.forecast(USER, k=3)
    assert [(a.advertiser_id, a.name, a.log_prob) for a in forecast.advertisers] == [
        (7, "Acme", -0.5),
        (2**40, "Żabka", -1.5),
        (3, "三星", -3.0),
    ]
    assert (forecast.exact, forecast.missing_mass, forecast.bundle_id) == (True, 0.125, "bundle-1")


def test_one_user_is_sent_as_one_row(triton: FakeTriton) -> None:
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


def test_interests_are_asked_for_by_their_number(triton: FakeTriton) -> None:
    triton.change(**interest_tensors())
    with RetrievalClient(triton.config()) as client:
        forecast = client.forecast(USER, interest_k=2)
        assert client.forecast(USER).interests == ()
    assert triton.calls[0][1][contract.INTEREST_TOP_K].tolist() == [[2]]
    assert contract.INTEREST_TOP_K not in triton.calls[1][1]
    assert forecast.interests == (
        Interest(interest_id=12, name="Tee", log_prob=-0.25),
        Interest(interest_id=11, name="茶", log_prob=-2.0),
    )
    assert forecast.to_json()["interests"][1] == {
        "interest_id": 11,
        "name": "茶",
        "log_prob": -2.0,
        "probability": pytest.approx(0.1353, abs=1e-4),
    }


def test_shadow_mode_shows_no_interests(triton: FakeTriton) -> None:
    triton.change(**interest_tensors())
    with RetrievalClient(triton.config(shadow=True)) as client:
        forecast = client.forecast(USER, interest_k=2)
    assert (forecast.advertisers, forecast.interests) == ((), ())
    assert len(forecast.withheld) == 3


@pytest.mark.parametrize(
    ("interest_k", "changed", "message"),
    [
        (1, {}, "INTEREST_IDS: found 2, asked for 1"),
        (2, {contract.INTEREST_IDS: np.array([[7, 7]])}, "INTEREST_IDS: one of them is named"),
        (2, {contract.INTEREST_IDS: np.array([[7]])}, "INTEREST_LOG_PROBS: found 2 values"),
        (
            2,
            {contract.INTEREST_LOG_PROBS: np.array([[-3, -1]], dtype=np.float32)},
            "INTEREST_LOG_PROBS: not the most probable first",
        ),
    ],
)
def test_impossible_interests_are_a_bad_answer(
    triton: FakeTriton, interest_k: int, changed: dict[str, Any], message: str
) -> None:
    triton.change(**(interest_tensors() | changed))
    with (
        RetrievalClient(triton.config()) as client,
        pytest.raises(BadAnswerError, match=message),
    ):
        client.forecast(USER, interest_k=interest_k)


def test_optional_arguments_are_sent_only_if_given(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        client.forecast({"as_of": "2024-05-31"})
        client.forecast({"as_of": "2024-05-31"}, k=5)
    assert set(triton.calls[0][1]) == {contract.USER_CONTEXT}
    assert set(triton.calls[1][1]) == {contract.USER_CONTEXT, contract.TOP_K}


def test_a_forecast_may_be_empty(triton: FakeTriton) -> None:
    triton.change(
        **{
            contract.ADVERTISER_IDS: np.zeros((1, 0), dtype=np.int64),
            contract.LOG_PROBS: np.zeros((1, 0), dtype=np.float32),
            contract.ADVERTISER_NAMES: np.zeros((1, 0), dtype=np.object_),
        }
    )
    with RetrievalClient(triton.config()) as client:
        assert client.forecast(USER).advertisers == ()


def test_the_error_of_a_status_is_one_line(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    with RetrievalClient(triton.config()) as client, pytest.raises(BadAnswerError) as caught:
        client.forecast(USER)
    assert str(caught.value) == f"advertiser_retrieval at {triton.url}: the server's reason"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({contract.LOG_PROBS: np.zeros((1, 3))}, r"FP64\[1, 3\], expected FP32\[1, n\]"),
        ({contract.LOG_PROBS: np.zeros(3, dtype=np.float32)}, r"found FP32\[3\], expected"),
        ({contract.EXACT: np.array([[True, True]])}, r"BOOL\[1, 2\], expected BOOL\[1, 1\]"),
        ({}, r"missing in the answer, expected"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_described(
    triton: FakeTriton, changed: dict[str, Any], message: str
) -> None:
    if changed:
        triton.change(**changed)
    else:
        triton.answer = lambda _model, _asked: {}
    with RetrievalClient(triton.config()) as client, pytest.raises(BadAnswerError, match=message):
        client.forecast(USER)


@pytest.mark.parametrize(
    "ids", [[7, 7, 3], [7, 8, 5]], ids=["an advertiser twice", "an excluded one"]
)
def test_a_forecast_must_fit_the_request(triton: FakeTriton, ids: list[int]) -> None:
    triton.change(**{contract.ADVERTISER_IDS: np.array([ids])})
    with RetrievalClient(triton.config(fail_open=True)) as client:
        forecast = client.forecast(USER, excluded_advertiser_ids=[5])
        longer = client.forecast(USER, k=2)
    assert_harmless(forecast)
    assert (forecast.reason, longer.reason) == (Reason.BAD_ANSWER, Reason.BAD_ANSWER)


def test_wrong_arguments_are_not_sent(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        with pytest.raises(InvalidArgumentError, match="k: found 0"):
            client.forecast(USER, k=0)
        with pytest.raises(InvalidArgumentError, match="excluded_advertiser_ids: found a str"):
            client.forecast(USER, excluded_advertiser_ids=["x"])  # type: ignore[list-item]
    assert triton.calls == []
