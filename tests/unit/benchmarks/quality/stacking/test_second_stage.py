from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from adprior_bench.quality.stacking.second_stage import (
    SETTINGS,
    SecondStage,
    Setting,
    StackRows,
    cross_fit,
)
from adprior_runtime.errors import InvalidInputError


def invented_rows(count: int = 6000, *, weight: float = 1.0, seed: int = 0) -> StackRows:
    """Return rows whose labels follow twice the ranker's logit, and ``weight`` of column 0."""
    random = np.random.default_rng(seed)
    logits, columns = random.normal(size=count), random.normal(size=(count, 2))
    chances = expit(2 * logits + weight * columns[:, 0] - 2)
    return StackRows(
        columns=columns.astype(np.float32),
        logits=logits,
        labels=(random.random(count) < chances).astype(np.float64),
        folds=random.integers(0, 5, count),
        learnable=np.ones(count, dtype=np.bool_),
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_column_with_information_is_used_and_one_without_is_not(setting: Setting) -> None:
    found = {}
    for weight in (0.0, 1.0):
        rows = invented_rows(weight=weight)
        logits = cross_fit(setting, rows, threads=1)
        found[weight] = roc_auc_score(rows.labels, logits) - roc_auc_score(rows.labels, rows.logits)
    assert found[1.0] > 0.02
    assert abs(found[0.0]) < 0.005


@pytest.mark.parametrize("setting", SETTINGS)
def test_chances_are_right_although_some_negatives_were_left_out(setting: Setting) -> None:
    rows = invented_rows(20_000)
    few = (rows.labels == 1) | (np.random.default_rng(1).random(len(rows.labels)) < 0.2)
    judged = invented_rows(20_000, seed=2)
    logits = SecondStage(setting, replace(rows, learnable=few), threads=1).adjust(judged)
    assert expit(logits).mean() == pytest.approx(judged.labels.mean(), rel=0.05)
    ideal = 2 * judged.logits + judged.columns[:, 0] - 2
    best = log_loss(judged.labels, expit(ideal))
    assert log_loss(judged.labels, expit(logits)) < best + 0.03


@pytest.mark.parametrize("setting", SETTINGS)
def test_users_do_not_teach_their_own_stage(setting: Setting) -> None:
    rows = invented_rows(1000)
    here = rows.folds == 3
    turned = replace(rows, labels=np.where(here, 1 - rows.labels, rows.labels))
    one, two = (cross_fit(setting, each, threads=1) for each in (rows, turned))
    np.testing.assert_array_equal(one[here], two[here])
    assert (one[~here] != two[~here]).any()


def test_positives_of_one_fold_are_refused() -> None:
    rows = invented_rows(100)
    alone = replace(rows, labels=(rows.folds == 0).astype(np.float64))
    with pytest.raises(InvalidInputError, match="rows to stack on have one label only"):
        cross_fit(SETTINGS[0], alone, threads=1)
