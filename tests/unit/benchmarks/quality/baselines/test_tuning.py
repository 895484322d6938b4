from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_bench.data.kept_results import KeptResults
from adprior_bench.quality.baselines import registry, tuning
from adprior_bench.quality.baselines.choices import Family, TunedBaseline
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity
from adprior_bench.quality.baselines.registry import baseline_families
from adprior_bench.quality.baselines.tuning import forecast_all, tune
from adprior_bench.quality.metrics import mean_recall
from support.encoded_users import ADVERTISERS, CUT, cases_of, invented_users, training_of, user


def tune_invented(kept: KeptResults | None = None, *, test_seed: int = 2) -> list[TunedBaseline]:
    training = training_of(invented_users(30, name="t"))
    return tune(
        baseline_families(training, threads=1, quick=True),
        training,
        cases_of(invented_users(8, name="v", seed=1)),
        cases_of(invented_users(6, name="j", seed=test_seed)),
        kept,
    )


@pytest.fixture(scope="module")
def tuned() -> list[TunedBaseline]:
    return tune_invented()


def test_every_baseline_is_tuned(tuned: list[TunedBaseline]) -> None:
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


def test_segments_need_profiles() -> None:
    training = training_of([user("a", [(CUT - 1, 1, 0)])])
    names = [family.name for family in baseline_families(training, threads=1)]
    assert "segment_popularity" not in names
    assert "lightgbm" in names


def test_trials_have_the_figures_of_their_forecasts(tuned: list[TunedBaseline]) -> None:
    cases = cases_of(invented_users(8, name="v", seed=1))
    for each in tuned:
        assert each.validation.shape == (len(cases), ADVERTISERS)
        assert (each.validation.sum(axis=1) <= 1 + 1e-5).all()
        assert each.best.recall == mean_recall(each.validation, cases)
        assert each.best.seconds > 0
        again = forecast_all(each.baseline, cases, ADVERTISERS)
        assert again.tolist() == each.validation.tolist()


def test_kept_baselines_are_not_fitted_again(
    tuned: list[TunedBaseline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "KEPT_FROM_S", 0.0)
    tune_invented(KeptResults(tmp_path))
    for name in ("OwnHistory", "UserNeighbours", "ItemNeighbours", "Boosted", "Sequential"):
        monkeypatch.setattr(registry, name, lambda *_, **__: pytest.fail("fitted again"))
    again = tune_invented(KeptResults(tmp_path))
    for one, two in zip(tuned, again, strict=True):
        assert (one.name, one.best.settings) == (two.name, two.best.settings)
        assert one.best.recall == two.best.recall
        assert one.validation.tolist() == two.validation.tolist()
        assert one.test.tolist() == two.test.tolist()
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        tune_invented(KeptResults(tmp_path), test_seed=3)


@pytest.mark.parametrize("is_slow", [False, True])
def test_results_that_depend_on_other_baselines_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    """Test forecasts are kept with a slow trial, even if they are quick."""
    monkeypatch.setattr(tuning, "KEPT_FROM_S", 0.5 if is_slow else 0.0)
    training = training_of(invented_users(9, name="t"))
    cases = cases_of(invented_users(3, name="v"))
    popularity = Popularity(training).shares
    made: list[str] = []

    def make(name: str, _: Any, **settings: Any) -> OwnHistory:
        made.append(name)
        time.sleep(0.6 * is_slow)
        return OwnHistory(training, popularity, **settings)

    def search(share: float) -> None:
        families = [
            Family(name="first", grid=[{"share": share}], make=partial(make, "first")),
            Family(name="second", grid=[{"share": 0.5}], make=partial(make, "second")),
        ]
        tune(families, training, cases, cases, KeptResults(tmp_path))

    search(0.1)
    assert made == ["first", "second"]
    search(0.3)
    assert made == ["first", "second"] * 2
    search(0.3)
    assert made == ["first", "second"] * 2


def test_quick_results_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "KEPT_FROM_S", 1e9)
    kept = KeptResults(tmp_path)
    training = training_of(invented_users(9, name="t"))
    cases = cases_of(invented_users(3, name="v"))
    families = baseline_families(training, threads=1, quick=True)[:1]
    tune(families, training, cases, cases, kept)
    assert len(kept) == 0


def test_recall_counts_advertisers_outside_the_catalogue_as_missed() -> None:
    person = user("a", [(CUT, 1, 0), (CUT, 2, 0), (CUT, -9, 0), (CUT + 1, 3, 0)])
    forecasts = np.zeros((2, ADVERTISERS), dtype=np.float32)
    forecasts[:, 1] = 0.5
    forecasts[:, 4] = 0.3
    assert mean_recall(forecasts, cases_of([person]), k=2) == pytest.approx((1 / 3 + 0) / 2)
