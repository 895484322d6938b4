from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from adprior_bench.quality.intervals import UserBootstrap, estimate
from adprior_bench.quality.ranking.ranking_metrics import area_draws, measure_ranking, user_auc
from support.quality_cases import weighted_draws


def _rows(seed: int, count: int = 400) -> tuple[npt.NDArray[np.float64], ...]:
    """Return logits with many ties, labels and owners."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=count).round(1)
    labels = (random.random(count) < 1 / (1 + np.exp(1 - logits))).astype(np.float64)
    return logits, labels, random.integers(0, 12, count).astype(np.float64)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_every_resample_is_what_scikit_learn_gives_with_weights(seed: int) -> None:
    logits, labels, owners = _rows(seed)
    bootstrap = UserBootstrap(owners, resamples=10, seed=seed)
    found = measure_ranking(logits, labels, bootstrap)
    chance = 1 / (1 + np.exp(-logits))

    def entropy_ratio(weights: npt.NDArray[np.float64]) -> float:
        base = np.full(len(labels), np.average(labels, weights=weights))
        return float(
            log_loss(labels, chance, sample_weight=weights)
            / log_loss(labels, base, sample_weight=weights)
        )

    for draws, measure in (
        (found.auc, lambda w: roc_auc_score(labels, logits, sample_weight=w)),
        (found.pr_auc, lambda w: average_precision_score(labels, logits, sample_weight=w)),
        (found.log_loss, lambda w: log_loss(labels, chance, sample_weight=w)),
        (found.normalised_entropy, entropy_ratio),
    ):
        np.testing.assert_allclose(draws, weighted_draws(bootstrap, measure))


def test_the_auc_of_each_user_is_among_their_own_rows() -> None:
    logits, labels, owners = _rows(7)
    labels[owners == 3] = 0
    bootstrap = UserBootstrap(owners, resamples=50)
    each = user_auc(logits, labels.astype(bool), bootstrap)
    for user in range(12):
        mine = owners == user
        if user == 3:
            assert np.isnan(each[user])
        else:
            assert each[user] == pytest.approx(roc_auc_score(labels[mine], logits[mine]))
    found = measure_ranking(logits, labels, bootstrap)
    assert found.user_auc[0] == pytest.approx(np.nanmean(each))
    drawn = bootstrap.totals((owners == 5) / (owners == 5).sum())
    twice = found.user_auc[drawn > 1].mean() - found.user_auc[drawn == 0].mean()
    assert np.sign(twice) == np.sign(each[5] - np.nanmean(each))


def test_equal_scores_say_nothing() -> None:
    labels = np.array([1, 0, 0, 1, 0])
    found = measure_ranking(np.zeros(5), labels, UserBootstrap(np.arange(5)))
    assert found.auc[0] == 0.5
    assert found.pr_auc[0] == pytest.approx(0.4)


@pytest.mark.parametrize("label", [True, False])
def test_one_label_alone_has_no_auc(label: bool) -> None:
    auc, pr_auc = area_draws(
        np.array([0.1, 0.2]), np.array([label, label]), UserBootstrap(np.arange(2), resamples=3)
    )
    assert np.isnan(auc).all()
    assert np.isnan(pr_auc).all() != label
    assert np.isnan(estimate(auc).value)


def test_a_gain_is_relative_and_paired() -> None:
    logits, labels, owners = _rows(8, 3000)
    bootstrap = UserBootstrap(owners)
    base = measure_ranking(logits, labels, bootstrap)
    same = measure_ranking(logits * 2, labels, bootstrap)
    assert (same.gain(base, "auc").low, same.gain(base, "pr_auc").high) == (0, 0)
    better = measure_ranking(logits + labels, labels, bootstrap)
    gain = better.gain(base, "pr_auc")
    assert gain.value == pytest.approx(better.pr_auc[0] / base.pr_auc[0] - 1)
    assert gain.low > 0
    assert better.gain(base, "normalised_entropy").high < 0
