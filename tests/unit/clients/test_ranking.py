from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    Advertiser,
    Forecast,
    InvalidArgumentError,
    RankingClient,
    RetrievalClient,
    User,
)
from adprior_runtime import contract
from support.client_calls import BASE, CANDIDATES

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton


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


def test_with_a_forecast_only_the_head_is_asked(triton: FakeTriton) -> None:
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


def test_numpy_values_are_accepted(triton: FakeTriton) -> None:
    number: Any = np.int64(3)
    seconds: Any = np.float32(5)
    masked: Any = np.ma.masked_array(CANDIDATES, [1, 0, 0])  # type: ignore[no-untyped-call]
    with RankingClient(triton.config()) as client:
        ids, logits = np.array(CANDIDATES), np.array(BASE, dtype=np.float32)
        ranking = client.score(FORECAST, ids, logits, user_id=number, deadline_s=seconds)
        assert [item.advertiser_id for item in ranking.candidates] == CANDIDATES
        assert ranking.applied
        with pytest.raises(InvalidArgumentError, match="found MaskedArray"):
            client.score(FORECAST, masked, BASE)


def test_without_candidates_nothing_is_sent(triton: FakeTriton) -> None:
    with RankingClient(triton.config()) as client:
        for subject in (USER, FORECAST):
            ranking = client.score(subject, [], [])
            assert (ranking.candidates, ranking.bundle_id, ranking.exact) == ((), "", None)
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
def test_wrong_arguments_are_not_sent(
    triton: FakeTriton, subject: Any, candidates: Any, base_logits: Any, message: str
) -> None:
    with (
        RankingClient(triton.config()) as client,
        pytest.raises(InvalidArgumentError, match=message),
    ):
        client.score(subject, candidates, base_logits)
    assert triton.calls == []


def test_columns_are_read_only_and_keep_every_bit(triton: FakeTriton) -> None:
    with RankingClient(triton.config(fail_open=True)) as client:
        good = client.score(FORECAST, CANDIDATES, BASE)
        triton.status = grpc.StatusCode.INTERNAL
        failed = client.score(FORECAST, CANDIDATES, BASE)
    assert good.logits[2] == BASE[2]  # not in the catalogue
    for ranking in (good, failed):
        assert ranking.base_logits.tolist() == BASE
        with pytest.raises(ValueError, match="read-only"):
            ranking.logits[0] = 7.0


def test_a_live_forecast_can_always_be_scored(triton: FakeTriton) -> None:
    answer = triton.answer
    rounded = {contract.LOG_PROBS: np.array([[5e-4, -9.0, -10.0]], dtype=np.float32)}
    triton.answer = lambda model, asked: (
        answer(model, asked) | (rounded if model == contract.ADVERTISER_RETRIEVAL else {})
    )
    with RetrievalClient(triton.config()) as retrieval, RankingClient(triton.config()) as ranking:
        assert ranking.score(retrieval.forecast(USER), CANDIDATES, BASE).applied
