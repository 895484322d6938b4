from __future__ import annotations

import numpy as np
import pytest

from adprior_bench.quality.tuning import Tuned, forecast_all, mean_recall, tune
from unit.encoded_users import ADVERTISERS, CUT, cases_of, invented_users, training_of, user


def test_recall_counts_what_the_catalogue_misses() -> None:
    person = user("a", [(CUT, 1, 0), (CUT, 2, 0), (CUT, -9, 0), (CUT + 1, 3, 0)])
    forecasts = np.zeros((2, ADVERTISERS), dtype=np.float32)
    forecasts[:, 1] = 0.5
    forecasts[:, 4] = 0.3
    assert mean_recall(forecasts, cases_of([person]), k=2) == pytest.approx((1 / 3 + 0) / 2)


@pytest.fixture(scope="module")
def tuned() -> list[Tuned]:
    training = training_of(invented_users(30, name="t"))
    return tune(training, cases_of(invented_users(8, name="v", seed=1)), threads=1, quick=True)


def test_every_baseline_is_tuned(tuned: list[Tuned]) -> None:
    assert [each.name for each in tuned] == [
        "popularity",
        "segment_popularity",
        "own_history",
        "own_recency",
        "user_knn",
        "own_history_and_user_knn",
        "item_knn",
        "own_history_and_item_knn",
        "lightgbm",
        "sasrec",
    ]


def test_the_figures_are_those_of_the_forecasts(tuned: list[Tuned]) -> None:
    cases = cases_of(invented_users(8, name="v", seed=1))
    for each in tuned:
        assert each.validation.shape == (len(cases), ADVERTISERS)
        assert (each.validation.sum(axis=1) <= 1 + 1e-5).all()
        assert each.best.recall == mean_recall(each.validation, cases)
        assert each.best.seconds > 0
        again = forecast_all(each.baseline, cases, ADVERTISERS)
        assert again.tolist() == each.validation.tolist()


def test_the_best_setting_is_kept() -> None:
    training = training_of(invented_users(30, name="t"))
    cases = cases_of(invented_users(8, name="v", seed=1))
    (popularity, *_) = tune(training, cases, threads=1, quick=True)
    assert len(popularity.trials) == 1
    assert popularity.best is popularity.trials[0]
