from __future__ import annotations

import numpy as np
import pytest

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.ranking.impressions import Impressions, simulate_impressions
from support.encoded_users import ADVERTISERS, CUT, cases_of, invented_users, training_of, user


@pytest.fixture(scope="module")
def training() -> Training:
    return training_of(invented_users(30, name="training"))


@pytest.fixture(scope="module")
def cases() -> list[EncodedCase]:
    return cases_of(invented_users(6, name="test", seed=1))


def requests(found: Impressions) -> list[tuple[list[int], list[float]]]:
    return [
        (found.rows[found.cases == case].tolist(), found.labels[found.cases == case].tolist())
        for case in np.unique(found.cases)
    ]


def test_a_request_is_the_days_advertisers_among_others(
    training: Training, cases: list[EncodedCase]
) -> None:
    found = simulate_impressions(training, cases, seed=1, candidates=12)
    assert np.unique(found.cases).tolist() == list(range(len(cases)))
    for case, (rows, labels) in zip(cases, requests(found), strict=True):
        assert len(rows) == 12
        assert rows == sorted(set(rows))
        assert np.array(rows)[np.array(labels) == 1].tolist() == case.targets.tolist()


def test_requests_depend_on_seed_and_case_alone(
    training: Training, cases: list[EncodedCase]
) -> None:
    first = requests(simulate_impressions(training, cases, seed=1, candidates=12))
    backwards = requests(simulate_impressions(training, cases[::-1], seed=1, candidates=12))
    assert backwards[::-1] == first
    alone = requests(simulate_impressions(training, cases[3:4], seed=1, candidates=12))
    assert alone == first[3:4]
    assert requests(simulate_impressions(training, cases, seed=2, candidates=12)) != first


def test_a_day_without_an_advertiser_of_the_catalogue_makes_no_request(training: Training) -> None:
    cases = cases_of([user("a", [(CUT - 1, 3, 0), (CUT, -2, 0), (CUT + 1, 4, 0)])])
    found = simulate_impressions(training, cases, candidates=5)
    assert np.unique(found.cases).tolist() == [1]
    none = simulate_impressions(training, cases[:1])
    assert (len(none.cases), len(none.rows), len(none.labels)) == (0, 0, 0)


def test_no_more_candidates_than_advertisers_nor_negatives_where_the_day_has_enough(
    training: Training,
) -> None:
    everything = cases_of([user("a", [(CUT, row, 0) for row in range(ADVERTISERS)])])
    found = simulate_impressions(training, everything, candidates=10)
    assert found.rows.tolist() == list(range(ADVERTISERS))
    assert (found.labels == 1).all()
    one = cases_of([user("a", [(CUT, 3, 0)])])
    found = simulate_impressions(training, one, candidates=500)
    assert found.rows.tolist() == list(range(ADVERTISERS))
    assert found.labels.sum() == 1


def test_negatives_come_from_the_users_past_categories_and_popularity() -> None:
    # Twenty of each: known to the user (0-19), of the user's category (20-39), popular (40-99).
    sellers = [(1, row, 1 if row < 40 else 2) for row in range(20, 100)]
    popular = [(2, row, 2) for row in range(40, 100) for _ in range(40)]
    training = Training(
        users=[user("seller", [*sellers, *popular])], cut=CUT, advertisers=100, categories=3
    )
    past = [(5, row, 1) for row in range(20)]
    test = [user(f"u{index}", [*past, (CUT, 99, 2)]) for index in range(200)]
    found = simulate_impressions(training, cases_of(test), candidates=21)
    drawn = found.rows[found.labels == 0]
    assert len(drawn) == 200 * 20
    own = np.count_nonzero(drawn < 20) / len(drawn)
    similar = np.count_nonzero((drawn >= 20) & (drawn < 40)) / len(drawn)
    assert 0.25 <= own < 0.27  # popularity's prior adds a little
    assert 0.25 <= similar < 0.27


def test_a_source_that_has_too_few_leaves_its_part_to_popularity(training: Training) -> None:
    newcomer = cases_of([user("a", [(CUT, 3, 0)])])
    assert len(simulate_impressions(training, newcomer, candidates=20).rows) == 20


def test_draws_are_in_proportion_to_the_weights() -> None:
    events = [(1, 0, 0)] * 30 + [(1, 1, 0)] * 10
    training = Training(users=[user("a", events)], cut=CUT, advertisers=3, categories=1)
    test = cases_of([user(f"u{index}", [(CUT, 2, 0)]) for index in range(3000)])
    found = simulate_impressions(training, test, candidates=2)
    drawn = found.rows[found.labels == 0]
    assert np.mean(drawn == 0) == pytest.approx(30.5 / 41, abs=0.03)
