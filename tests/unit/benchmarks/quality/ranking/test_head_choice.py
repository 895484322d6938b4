from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import log_loss

from adprior_bench.quality.ranking.base_ranker import RankedRows
from adprior_bench.quality.ranking.folds import case_folds
from adprior_bench.quality.ranking.head_choice import (
    PENALTIES,
    REFERENCE,
    HeadForm,
    apply_head,
    best_head,
    compare_heads,
)
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_build.head.clamp_in_graph import CLAMP
from adprior_build.head.logistic_fit import fit_recalibration, sigmoid
from adprior_build.head.variants import VARIANTS, Head
from adprior_runtime.errors import InvalidInputError
from support.encoded_users import CUT, cases_of, user


def make_rows(users: int, weight: float) -> tuple[npt.NDArray[np.float32], RankedRows]:
    """Return rows whose labels follow the logit and ``weight`` times the first feature."""
    random = np.random.default_rng(0)
    cases = cases_of([user(f"user-{index}", [(CUT, 0, 0)]) for index in range(users)])
    owners = np.repeat(np.arange(users), 20)
    features = random.normal(size=(len(owners), 6)).astype(np.float32)
    logits = random.normal(-1, 1, len(owners))
    chances = sigmoid(logits + weight * features[:, 0])
    labels = (random.uniform(size=len(owners)) < chances).astype(np.float64)
    shown = Impressions(cases=owners, rows=np.zeros(len(owners), dtype=np.int32), labels=labels)
    return features, RankedRows(cases=cases, impressions=shown, logits=logits)


def test_the_reference_is_recalibrated_on_the_other_folds() -> None:
    features, rows = make_rows(40, 1.0)
    reference, *others = compare_heads(features, rows)
    labels = rows.impressions.labels
    folds = case_folds(rows.cases)[rows.impressions.cases]
    expected = np.zeros(len(labels))
    for fold in np.unique(folds):
        slope, shift = fit_recalibration(rows.logits[folds != fold], labels[folds != fold])
        expected[folds == fold] = slope * rows.logits[folds == fold] + shift
    assert (reference.name, reference.l2) == (REFERENCE, 0.0)
    assert reference.log_loss == pytest.approx(log_loss(labels, sigmoid(expected)))
    assert {(item.name, item.l2) for item in others} == {
        (name, l2) for name in VARIANTS for l2 in PENALTIES
    }


def test_what_features_tell_is_found_and_noise_is_penalised_away() -> None:
    telling = compare_heads(*make_rows(40, 1.0))
    assert best_head(telling).log_loss < telling[0].log_loss - 0.03
    noise = compare_heads(*make_rows(40, 0.0))
    assert best_head(noise).l2 == max(PENALTIES)
    assert best_head(noise).log_loss > noise[0].log_loss - 0.002


def test_increments_are_clamped() -> None:
    head = Head(
        weights=np.array([1.0, 0, 0, 0, 0, 0]),
        bias=0.0,
        mean=np.zeros(6),
        scale=np.ones(6),
        clamp=CLAMP,
    )
    features = np.zeros((3, 6), dtype=np.float32)
    features[:, 0] = [-9, 0.5, 9]
    assert apply_head(head, features, np.ones(3)).tolist() == [1 - CLAMP, 1.5, 1 + CLAMP]


def test_one_user_is_too_few() -> None:
    with pytest.raises(InvalidInputError, match="1 cases are of too few users"):
        compare_heads(*make_rows(1, 1.0))


def test_the_reference_is_never_chosen() -> None:
    forms = [
        HeadForm(name=name, l2=1.0, log_loss=log_loss)
        for name, log_loss in ((REFERENCE, 0.1), ("mlp", 0.3), ("logistic", 0.2))
    ]
    assert best_head(forms).name == "logistic"
