from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    Advertiser,
    BadAnswerError,
    ClientError,
    DeadlineError,
    Forecast,
    InvalidArgumentError,
    RankingClient,
    UnavailableError,
    User,
)
from adprior_runtime import contract

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton

pytest_plugins = ("support.fake_triton",)

USER = User(as_of="2024-05-31")
FORECAST = Forecast(
    advertisers=(
        Advertiser(advertiser_id=7, name="Acme", log_prob=-0.5),
        Advertiser(advertiser_id=2**40, name="Żabka", log_prob=-1.5),
    ),
    exact=False,
    missing_mass=0.25,
    bundle_id="bundle-1",
)
EMPTY = Forecast(advertisers=(), exact=False, missing_mass=1.0, bundle_id="bundle-1")


def test_a_user_is_ranked_live(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        ranking = client.score(USER, [7, 7, 9], [0.5, -0.5, 1.5])
    assert [
        (item.advertiser_id, item.base_logit, item.adjusted_logit, item.log_prob, item.status)
        for item in ranking.candidates
    ] == [
        (7, 0.5, 0.75, -2.0, "exact"),
        (7, -0.5, -0.25, -2.0, "upper_bound"),
        (9, 1.5, 1.5, None, "not_in_catalogue"),
    ]
    assert (ranking.bundle_id, ranking.exact) == ("bundle-1", True)
    [(model, asked)] = triton.calls
    assert model == contract.ADVERTISER_RANKING
    assert {name: values.shape for name, values in asked.items()} == {
        contract.USER_CONTEXT: (1, 1),
        contract.CANDIDATE_ADVERTISER_IDS: (1, 3),
        contract.BASE_LOGITS: (1, 3),
    }


def test_a_forecast_at_hand_is_ranked_by_the_head_alone(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        ranking = client.score(FORECAST, [7, 8], [0.5, -0.5])
    [(model, asked)] = triton.calls
    assert model == contract.PRIOR_HEAD
    assert {name: values.tolist() for name, values in asked.items()} == {
        contract.ADVERTISER_IDS: [[7, 2**40]],
        contract.LOG_PROBS: [[-0.5, -1.5]],
        contract.MISSING_MASS: [[0.25]],
        contract.EXACT: [[False]],
        contract.CANDIDATE_ADVERTISER_IDS: [[7, 8]],
        contract.BASE_LOGITS: [[0.5, -0.5]],
    }
    assert len(ranking.candidates) == 2
    assert ranking.exact is FORECAST.exact


def test_an_empty_forecast_is_sent_as_it_is(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        assert len(client.score(EMPTY, [7], [0.5]).candidates) == 1
    _, asked = triton.calls[0]
    assert asked[contract.ADVERTISER_IDS].shape == (1, 0)
    assert asked[contract.LOG_PROBS].shape == (1, 0)


def test_arrays_may_be_ranked(triton: FakeTriton) -> None:
    ids: Any = np.array([7, 8])
    logits: Any = np.array([0.5, -0.5])
    with RankingClient(triton.config()) as client:
        ranking = client.score({"as_of": "2024-05-31"}, ids, logits)
    assert [item.advertiser_id for item in ranking.candidates] == [7, 8]


def test_no_candidates_make_no_call(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        live = client.score(USER, [], [])
        stored = client.score(FORECAST, [], [])
    assert (live.candidates, live.bundle_id, live.exact) == ((), "", None)
    assert (stored.candidates, stored.bundle_id, stored.exact) == ((), "", None)
    assert triton.calls == []


@pytest.mark.parametrize(
    ("subject", "candidates", "base_logits", "message"),
    [
        (USER, [7, 8], [0.5], "base_logits: found 1, expected 2, one for each candidate"),
        (USER, [7], [float("nan")], r"base_logits\[0\]: found nan"),
        (USER, [7.5], [0.5], "candidates: found a float"),
        ("user", [7], [0.5], "user: found str"),
        (7, [], [], "user: found int"),
    ],
)
def test_what_the_caller_got_wrong_is_never_sent(
    triton: FakeTriton, subject: Any, candidates: Any, base_logits: Any, message: str
) -> None:
    with (
        RankingClient(triton.config()) as client,
        pytest.raises(InvalidArgumentError, match=message),
    ):
        client.score(subject, candidates, base_logits)
    assert triton.calls == []


@pytest.mark.parametrize("subject", [USER, FORECAST])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
    ],
)
def test_a_status_becomes_an_error(
    triton: FakeTriton, subject: Any, status: grpc.StatusCode, error: type[ClientError]
) -> None:
    triton.status = status
    with (
        RankingClient(triton.config()) as client,
        pytest.raises(error, match="the server's reason"),
    ):
        client.score(subject, [7], [0.5])


def test_a_slow_server_meets_the_deadline(triton: FakeTriton) -> None:
    triton.hold = True
    with (
        RankingClient(triton.config(deadline_s=0.2)) as client,
        pytest.raises(DeadlineError),
    ):
        client.score(USER, [7], [0.5])


def test_priors_for_other_candidates_are_a_bad_answer(triton: FakeTriton) -> None:
    answer = triton.answer
    short = {contract.ADJUSTMENTS: np.zeros((1, 1), dtype=np.float32)}
    triton.answer = lambda model, asked: answer(model, asked) | short
    with (
        RankingClient(triton.config()) as client,
        pytest.raises(BadAnswerError, match="ADJUSTMENTS: found 1 values, expected 2"),
    ):
        client.score(USER, [7, 8], [0.5, -0.5])
