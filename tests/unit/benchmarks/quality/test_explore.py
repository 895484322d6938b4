from __future__ import annotations

import numpy as np

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.explore import Explore, new_shares
from adprior_bench.quality.metrics import case_values, score
from support.quality_cases import case

OFF, OTHER_OFF = -2, -3
CASES = [
    case("a", past=[0, 3, OFF], today=[3, 4, OFF, OTHER_OFF]),
    case("b", past=[1], today=[1]),
    case("c", past=[], today=[2]),
]
FORECASTS = np.array(
    [[0.5, 0.1, 0.0, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1, 0.0]],
    dtype=np.float32,
)


def test_lists_are_filled_up_without_the_users_own_history() -> None:
    explored = Explore.of(CASES)
    assert explored.places.tolist() == [0, 2]
    forecasts = explored.forecasts(FORECASTS)
    np.testing.assert_allclose(forecasts[0], [0, 0.5, 0, 0, 0.5])
    np.testing.assert_allclose(forecasts[1], FORECASTS[2])
    targets = Targets.of(explored.cases)
    assert targets.rows.tolist() == [4, 2]
    found = score(forecasts, targets)
    values = case_values(found, targets, cohorts(targets)["all"])
    # One of the first user's two new advertisers is not in the catalogue.
    np.testing.assert_allclose(values["recall@5"], [1 / 2, 1])
    np.testing.assert_allclose(values["recall@1"][1], 0)


def test_newcomers_are_the_only_ones_that_count_if_wanted() -> None:
    explored = Explore.of(CASES, np.array([False, False, True, False, False]))
    assert explored.places.tolist() == [2]
    assert [case.targets.tolist() for case in explored.cases] == [[2]]
    assert explored.recall(FORECASTS, 1) == 1  # in a list of newcomers only
    assert explored.only(explored.forecasts(FORECASTS)).tolist() == [[0, 0, FORECASTS[2, 2], 0, 0]]
    assert Explore.of(CASES, np.zeros(5, dtype=np.bool_)).recall(FORECASTS) == 0


def test_the_share_of_a_list_that_is_new_is_counted() -> None:
    lists = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]])
    assert new_shares(lists, CASES).tolist() == [0.5, 0.75, 1.0]
