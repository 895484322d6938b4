from __future__ import annotations

import numpy as np
import pytest

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_bench.quality.ranking.ranking_features import RankingFeatures
from support.encoded_users import CUT, cases_of, user


@pytest.fixture(scope="module")
def training() -> Training:
    young, old = {"age": "young", "id": "1"}, {"age": "old", "id": "1"}
    return Training(
        users=[
            user("a", [(1, 0, 0), (2, 0, 0), (2, 1, 1)], young),
            user("b", [(1, 0, 0), (1, 0, 0)], young),
            user("c", [(3, 2, 1)], old),
        ],
        cut=CUT,
        advertisers=4,
        categories=2,
    )


def test_columns_by_hand(training: Training) -> None:
    features = RankingFeatures(training)
    assert features.profile_keys == ("age",)  # everyone has the same id
    events = [(CUT - 70, 0, 0), (CUT - 10, 2, 1), (CUT - 10, 2, 1), (CUT, 1, 0)]
    cases = cases_of([user("x", events, {"age": "old"})])
    shown = Impressions(
        cases=np.zeros(3, dtype=np.int64), rows=np.array([2, 1, 0]), labels=np.zeros(3)
    )
    table = dict(zip(features.names, features.table(cases, shown).T, strict=True))
    assert table["own_count"].tolist() == [2, 0, 1]
    assert table["days_since_last"].tolist() == [10, 10_000, 70]
    np.testing.assert_allclose(table["recent_affinity"], [0.5, 0.5, 0])
    # Two users came to the first advertiser, one of them on two days; five pairs, one return.
    np.testing.assert_allclose(table["return_rate"], np.array([2.5, 2.5, 3.5]) / [11, 11, 12])
    popular = (np.array([1, 1, 4]) + 0.5) / (6 + 4 * 0.5)
    segment = (np.array([1, 0, 0]) + 300 * popular) / 301
    np.testing.assert_allclose(table["profile_0"], segment / popular)


def test_what_the_user_is_like_by_hand(training: Training) -> None:
    features = RankingFeatures(training)
    past = [(CUT - 400, 0, 0), (CUT - 20, 0, 0), (CUT - 20, 1, 1), (CUT - 20, 1, 1), (CUT, 2, 0)]
    cases = cases_of([user("x", past), user("new", [(CUT, 0, 0)])])
    shown = Impressions(cases=np.array([0, 0, 1]), rows=np.array([1, 3, 2]), labels=np.zeros(3))
    table = dict(zip(features.names, features.table(cases, shown).T.tolist(), strict=True))
    assert table["days_since_any"] == [20, 20, 10_000]
    assert table["user_events_30"] == [3, 3, 0]
    assert table["user_events_365"] == [3, 3, 0]
    assert table["basket_size"] == [1.5, 1.5, 0]
    assert table["last_basket_size"] == [2, 2, 0]
    assert table["days_between_baskets"] == [380, 380, 10_000]
    assert table["distinct_advertisers"] == [2, 2, 0]
    assert table["largest_share"] == [0.5, 0.5, 0]


def test_every_row_is_its_own_case_and_candidate(training: Training) -> None:
    features = RankingFeatures(training)
    cases = cases_of([user(str(row), [(CUT - 5, row, 0), (CUT, 0, 0)]) for row in range(3)])
    shown = Impressions(
        cases=np.array([0, 0, 2, 2]), rows=np.array([0, 3, 0, 2]), labels=np.zeros(4)
    )
    counts = features.table(cases, shown)[:, features.names.index("own_count")]
    assert counts.tolist() == [1, 0, 0, 1]


def test_keys_given_are_the_columns(training: Training) -> None:
    features = RankingFeatures(training, keys=["age", "id"])
    assert features.names[-2:] == ("profile_0", "profile_1")
