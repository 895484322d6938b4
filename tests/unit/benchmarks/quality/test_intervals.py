from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_runtime.errors import InvalidInputError
from support.quality_cases import weighted_draws


def test_users_are_drawn_with_all_their_cases() -> None:
    owners = np.array(["a", "b", "a", "c", "a"])
    bootstrap = UserBootstrap(owners, resamples=200)
    shown = np.array([bootstrap.totals(np.eye(5)[case]) for case in range(5)])
    np.testing.assert_array_equal(shown[:, 0], np.ones(5))
    np.testing.assert_array_equal(shown[0], shown[2])
    np.testing.assert_array_equal(shown[0], shown[4])
    np.testing.assert_array_equal(shown[[0, 1, 3]].sum(axis=0), np.full(201, 3))
    assert len(np.unique(shown[0])) > 1


def test_the_first_draw_is_the_statistic_itself() -> None:
    values = np.array([1.0, 2.0, 6.0])
    bootstrap = UserBootstrap(np.array([5, 7, 7]), resamples=3)
    assert bootstrap.mean(values)[0] == pytest.approx(3.0)
    assert bootstrap.mean(values, np.array([True, False, True]))[0] == pytest.approx(3.5)
    assert bootstrap.ratio(values, np.array([1, 1, 0]))[0] == pytest.approx(4.5)
    assert bootstrap.users == 2


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 1000))
def test_means_are_those_of_the_weighted_cases(owners: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=len(owners))
    bootstrap = UserBootstrap(np.array(owners), resamples=20, seed=seed)
    weighted = weighted_draws(bootstrap, lambda weights: float(np.average(values, weights=weights)))
    np.testing.assert_allclose(bootstrap.mean(values), weighted)


def test_many_users_give_the_same_draws_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    owners, values = np.arange(50) // 2, np.random.default_rng(1).normal(size=(50, 3))
    whole = UserBootstrap(owners, resamples=30).totals(values)
    monkeypatch.setattr("adprior_bench.quality.intervals._BLOCK_ELEMENTS", 60)
    bootstrap = UserBootstrap(owners, resamples=30)
    assert [len(block) for block in bootstrap.blocks(30)] == [2] * 15 + [1]
    np.testing.assert_allclose(bootstrap.totals(values), whole)


def test_the_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(3).normal(size=400)
    found = estimate(UserBootstrap(np.arange(400), resamples=4000).mean(values))
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)


def test_cases_that_are_alike_within_a_user_widen_the_interval() -> None:
    per_user = np.random.default_rng(3).normal(size=100)
    owners = np.repeat(np.arange(100), 16)
    by_user = estimate(UserBootstrap(owners).mean(per_user[owners]))
    by_case = estimate(UserBootstrap(np.arange(1600)).mean(per_user[owners]))
    assert by_user.high - by_user.low == pytest.approx(4 * (by_case.high - by_case.low), rel=0.15)


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(4)
    hard = random.normal(size=300)
    bootstrap = UserBootstrap(np.arange(300))
    better, worse = bootstrap.mean(hard + 0.01), bootstrap.mean(hard)
    assert estimate(better).overlaps(estimate(worse))
    assert estimate(better - worse).low == pytest.approx(0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(5).normal(size=40)
    owners = np.arange(40) // 3
    first, again, other = (
        estimate(UserBootstrap(owners, seed=seed).mean(values)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_resamples_without_the_statistic_are_left_out() -> None:
    found = estimate(np.array([2.0, 1.0, np.nan, 3.0, np.inf]))
    assert (found.low, found.high) == pytest.approx((1.05, 2.95))
    assert np.isnan(estimate(np.array([np.nan, 1.0, 1.0])).low)
    assert np.isnan(estimate(np.array([1.0, np.nan])).value)


def test_a_shifted_statistic_is_centred_and_stays_positive() -> None:
    draws = np.concatenate([[5.0], np.linspace(2, 4, 101)])
    assert estimate(draws).high < 5
    centred = estimate(draws, centred=True)
    assert (centred.low, centred.high) == pytest.approx((4.05, 5.95))
    near_zero = np.concatenate([[0.1], np.linspace(2, 4, 101)])
    assert estimate(near_zero, centred=True).low == 0


def test_intervals_overlap_if_they_share_a_value() -> None:
    above, below = Estimate(value=2, low=1, high=3), Estimate(value=-2, low=-3, high=-1)
    around = Estimate(value=0.5, low=-0.5, high=1.5)
    assert above.overlaps(around)
    assert around.overlaps(above)
    assert not above.overlaps(below)


def test_no_cases_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no cases to resample, expected at least one"):
        UserBootstrap(np.array([], dtype=np.int64))
