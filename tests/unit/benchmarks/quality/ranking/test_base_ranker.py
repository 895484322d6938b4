from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.ranking.base_ranker import BaseRanker, out_of_fold_table
from adprior_bench.quality.ranking.folds import fold_of
from adprior_bench.quality.ranking.impressions import Impressions, simulate_impressions
from adprior_bench.quality.ranking.ranking_features import RankingFeatures
from adprior_runtime.errors import InvalidInputError
from support.encoded_users import cases_of, invented_users, training_of

TRAINING_USERS = invented_users(60, name="training")
TEST_USERS = invented_users(40, name="test", seed=1)


@pytest.fixture(scope="module")
def training() -> Training:
    return training_of(TRAINING_USERS)


@pytest.fixture(scope="module")
def later() -> list[EncodedCase]:
    return cases_of(TRAINING_USERS)[::2]


@pytest.fixture(scope="module")
def shown(training: Training, later: list[EncodedCase]) -> Impressions:
    return simulate_impressions(training, later, candidates=15)


def test_it_ranks_users_that_it_has_not_seen(
    training: Training, later: list[EncodedCase], shown: Impressions
) -> None:
    ranker = BaseRanker(training, later, shown, threads=1)
    cases = cases_of(TEST_USERS)
    test = simulate_impressions(training, cases, candidates=15)
    logits = ranker.logits(cases, test)
    assert roc_auc_score(test.labels, logits) > 0.7
    chances = 1 / (1 + np.exp(-logits))
    assert chances.mean() == pytest.approx(test.labels.mean(), rel=0.25)
    assert sum(ranker.importance().values()) == pytest.approx(1)
    again = BaseRanker(training, later, shown, threads=2)
    assert again.logits(cases, test).tobytes() == logits.tobytes()
    nothing = simulate_impressions(training, [])
    assert ranker.logits([], nothing).shape == (0,)


def test_labels_without_a_pattern_are_not_learnt_by_heart(
    training: Training, later: list[EncodedCase]
) -> None:
    """With real labels of the same rows, more rounds are chosen."""
    few = simulate_impressions(training, later[:240], candidates=8)
    labels = (np.random.default_rng(0).random(len(few.rows)) < 0.03).astype(np.float64)
    noise, real = (
        BaseRanker(training, later, each, choose_rounds=True, threads=1).rounds
        for each in (replace(few, labels=labels), few)
    )
    assert noise < 30 < real


def test_it_never_sees_its_own_users_but_by_their_history(
    training: Training, later: list[EncodedCase], shown: Impressions
) -> None:
    table = out_of_fold_table(training, later, shown)
    who = later[0].user.user_id
    fold = fold_of(who)
    others = [user for user in training.users if fold_of(user.user_id) != fold]
    here = shown.cases == 0
    expected = RankingFeatures(replace(training, users=others)).table(later, shown.chosen(here))
    np.testing.assert_array_equal(table[here], expected)


def test_nothing_to_learn_from_is_refused(training: Training, later: list[EncodedCase]) -> None:
    with pytest.raises(InvalidInputError, match="nothing to learn from"):
        BaseRanker(training, later, simulate_impressions(training, []))
