from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.intervals import UserBootstrap
from adprior_bench.quality.metrics import (
    SMALLEST_PROBABILITY,
    Scored,
    case_values,
    measure_forecasts,
    score,
)
from adprior_runtime.errors import InvalidInputError
from support.quality_cases import case

OFF, OTHER_OFF = -2, -3
CASES = [
    case("a", past=[0, 3, OFF], today=[3, 4, OFF]),
    case("b", past=[1], today=[2], covered=False),
    case("c", past=[], today=[OFF]),
    case("d", past=[OFF], today=[0, 1, OTHER_OFF]),
]
FORECASTS = np.array(
    [
        [0.4, 0.3, 0.15, 0.1, 0.05],
        [0.1, 0.1, 0.5, 0.0, 0.2],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.0, 0.6, 0.1, 0.1, 0.2],
    ],
    dtype=np.float32,
)


def scored(cases: list[EncodedCase], forecasts: npt.NDArray[Any]) -> tuple[Scored, Targets]:
    targets = Targets.of(cases)
    return score(forecasts.astype(np.float32), targets), targets


def test_values_are_those_worked_out_by_hand() -> None:
    result, targets = scored(CASES, FORECASTS)
    assert result.ranks[[0, 1, 2, 4]].tolist() == [4, 5, 1, 1]
    assert result.ranks[3] == 5
    values = case_values(result, targets, cohorts(targets)["all"])
    np.testing.assert_allclose(values["recall@1"], [0, 1, 0, 1 / 3])
    np.testing.assert_allclose(values["recall@5"], [2 / 3, 1, 0, 2 / 3])
    np.testing.assert_allclose(values["mrr"], [1 / 4, 1, 0, 1])
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(
        values["ndcg@20"],
        [(1 / math.log2(5) + 1 / math.log2(6)) / best, 1, 0, (1 + 1 / math.log2(6)) / best],
    )


def test_repeats_are_counted_apart() -> None:
    result, targets = scored(CASES, FORECASTS)
    repeated = case_values(result, targets, cohorts(targets)["repeated"])
    np.testing.assert_allclose(repeated["recall@5"], [1 / 2, 0, 0, 0])


def test_measures_are_means_over_the_cohort_and_losses_over_its_targets() -> None:
    result, targets = scored(CASES, FORECASTS)
    found, bootstrap = cohorts(targets), UserBootstrap(targets.users)
    everyone = measure_forecasts(result, targets, found["all"], bootstrap)
    assert everyone["recall@1"][0] == pytest.approx((1 + 1 / 3) / 4)
    losses = -np.log([0.1, 0.05, 0.5, SMALLEST_PROBABILITY, 0.6])
    assert everyone["log_loss"][0] == pytest.approx(losses.mean())
    covered = measure_forecasts(result, targets, found["covered"], bootstrap)
    assert covered["recall@1"][0] == pytest.approx(1 / 9)
    assert covered["log_loss"][0] == pytest.approx(losses[[0, 1, 3, 4]].mean())
    repeated = measure_forecasts(result, targets, found["repeated"], bootstrap)
    assert repeated["recall@5"][0] == pytest.approx(1 / 2)
    assert np.isnan(repeated["recall@5"]).any()  # user a was not drawn


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_any_forecast_gives_what_plain_loops_give(seed: int, advertisers: int) -> None:
    random = np.random.default_rng(seed)
    cases = [
        case(
            f"user {index % 4}",
            random.integers(0, advertisers, 5).tolist(),
            random.integers(0, advertisers, random.integers(1, 4)).tolist(),
        )
        for index in range(12)
    ]
    forecasts = random.dirichlet(np.full(advertisers, 0.5), 12).astype(np.float32) * 0.999
    result, targets = scored(cases, forecasts)
    values = case_values(result, targets, cohorts(targets)["all"])
    for index, item in enumerate(cases):
        order = np.argsort(-forecasts[index])
        wanted = set(item.targets.tolist())
        assert result.top_rows[index].tolist() == order[:20].tolist()
        for k in (1, 5, 10, 20):
            share = len(wanted.intersection(order[:k].tolist())) / len(wanted)
            assert values[f"recall@{k}"][index] == pytest.approx(share)
        best = min(order.tolist().index(row) for row in wanted) + 1
        assert values["mrr"][index] == pytest.approx(1 / best)
        if advertisers > 1:
            relevant = np.isin(np.arange(advertisers), list(wanted))
            expected = ndcg_score([relevant], [forecasts[index]], k=20)
            assert values["ndcg@20"][index] == pytest.approx(expected)


def test_ties_are_broken_alike_and_tell_nothing_of_the_catalogues_order() -> None:
    cases = [case(f"user {index}", [], [0]) for index in range(2)]
    flat, _ = scored(cases, np.zeros((2, 1000)))
    signed, _ = scored(cases, np.full((2, 1000), -0.0))
    np.testing.assert_array_equal(flat.top_rows[0], flat.top_rows[1])
    np.testing.assert_array_equal(flat.top_rows, signed.top_rows)
    assert len(np.unique(flat.top_rows[0])) == 20
    assert flat.top_rows[0].mean() == pytest.approx(500, abs=200)
    everything = [case("a", [], list(range(1000)))]
    assert sorted(scored(everything, np.zeros((1, 1000)))[0].ranks) == list(range(1, 1001))


def test_blocks_of_cases_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, targets = scored(CASES, FORECASTS)
    monkeypatch.setattr("adprior_bench.quality.metrics._BLOCK_ELEMENTS", 10)
    parts = score(FORECASTS, targets)
    np.testing.assert_array_equal(parts.ranks, whole.ranks)
    np.testing.assert_array_equal(parts.top_rows, whole.top_rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.6, 0, 0, 0], "forecast 2 .* from 0 with sum 1.1, expected"),
        ([-0.1, 0.6, 0, 0, 0], "forecast 2 .* from -0.1 with sum"),
        ([math.nan, 0, 0, 0, 0], "forecast 2 .* expected none below 0"),
        ([math.inf, 0, 0, 0, 0], "sum inf, expected"),
    ],
)
def test_what_is_no_distribution_is_refused(row: list[float], message: str) -> None:
    wrong = FORECASTS.copy()
    wrong[2] = row
    with pytest.raises(InvalidInputError, match=message):
        score(wrong, Targets.of(CASES))


def test_other_cases_forecasts_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="forecasts for 3 cases, expected 4"):
        score(FORECASTS[:3], Targets.of(CASES))
