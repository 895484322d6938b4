from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_bench.data.kept_results import KeptResults
from adprior_bench.quality.baselines import registry, tuning
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity
from adprior_bench.quality.baselines.registry import tune
from adprior_bench.quality.baselines.tuning import SettingsSearch, Tuned, forecast_all, mean_recall
from adprior_runtime.terminal.progress import progress_bar
from support.encoded_users import ADVERTISERS, CUT, cases_of, invented_users, training_of, user


def test_recall_counts_what_the_catalogue_misses() -> None:
    person = user("a", [(CUT, 1, 0), (CUT, 2, 0), (CUT, -9, 0), (CUT + 1, 3, 0)])
    forecasts = np.zeros((2, ADVERTISERS), dtype=np.float32)
    forecasts[:, 1] = 0.5
    forecasts[:, 4] = 0.3
    assert mean_recall(forecasts, cases_of([person]), k=2) == pytest.approx((1 / 3 + 0) / 2)


def tune_invented(kept: KeptResults | None = None, *, judged_seed: int = 2) -> list[Tuned]:
    return tune(
        training_of(invented_users(30, name="t")),
        cases_of(invented_users(8, name="v", seed=1)),
        cases_of(invented_users(6, name="j", seed=judged_seed)),
        threads=1,
        quick=True,
        kept=kept,
    )


@pytest.fixture(scope="module")
def tuned() -> list[Tuned]:
    return tune_invented()


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


def test_what_is_kept_is_not_fitted_again(
    tuned: list[Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LEAST_KEPT_S", 0.0)
    tune_invented(KeptResults(tmp_path, interval_s=0))
    for name in ("OwnHistory", "UserNeighbours", "ItemNeighbours", "Boosted", "Sequential"):
        monkeypatch.setattr(registry, name, lambda *_, **__: pytest.fail("fitted again"))
    again = tune_invented(KeptResults(tmp_path))
    for one, two in zip(tuned, again, strict=True):
        assert (one.name, one.best.settings) == (two.name, two.best.settings)
        assert one.best.recall == two.best.recall
        assert one.validation.tolist() == two.validation.tolist()
        assert one.judged.tolist() == two.judged.tolist()
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        tune_invented(KeptResults(tmp_path), judged_seed=3)


@pytest.mark.parametrize("is_slow", [False, True])
def test_what_was_made_of_other_baselines_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_slow: bool
) -> None:
    """What was judged is kept with a slow trial, however quickly it was judged."""
    monkeypatch.setattr(tuning, "LEAST_KEPT_S", 0.5 if is_slow else 0.0)
    training = training_of(invented_users(9, name="t"))
    cases = cases_of(invented_users(3, name="v"))
    everyone = Popularity(training, half_life_days=None).shares
    made: list[str] = []

    def make(kind: str, **settings: Any) -> OwnHistory:
        made.append(kind)
        time.sleep(0.6 * is_slow)
        return OwnHistory(training, everyone, **settings)

    def search(share: float) -> None:
        with progress_bar(total=2, unit="setting", desc="tuning") as bar:
            found = SettingsSearch(
                training=training,
                cases=cases,
                judged=cases,
                bar=bar,
                kept=KeptResults(tmp_path, interval_s=0),
            )
            found.choose("first", [{"share": share}], partial(make, "first"))
            found.choose("second", [{"share": 0.5}], partial(make, "second"))

    search(0.1)
    assert made == ["first", "second"]
    search(0.3)
    assert made == ["first", "second"] * 2
    search(0.3)
    assert made == ["first", "second"] * 2


def test_what_is_quickly_done_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LEAST_KEPT_S", 1e9)
    tune_invented(KeptResults(tmp_path, interval_s=0))
    assert list(tmp_path.iterdir()) == []


def test_the_best_setting_is_kept(tuned: list[Tuned]) -> None:
    popularity = tuned[0]
    assert len(popularity.trials) == 1
    assert popularity.best is popularity.trials[0]
