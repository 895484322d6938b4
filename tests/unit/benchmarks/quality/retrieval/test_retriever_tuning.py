from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adprior_bench.quality.retrieval.retriever import RetrieverSettings
from adprior_bench.quality.retrieval.retriever_tuning import GRID, tune_retriever
from support.small_shop import read_shop


def test_the_best_trial_is_chosen_without_a_look_at_test_users(tmp_path: Path) -> None:
    study = replace(read_shop(tmp_path), test=())
    found = tune_retriever(study, trials=4, budgets=(2,))
    recalls = [trial["recall"] for trial in found.trials]
    assert len(recalls) == 4
    best = found.trials[recalls.index(max(recalls))]
    assert found.retriever.settings.half_life_days == best["half_life_days"]
    assert found.retriever.settings.weights == best["weights"]
    first = found.trials[0]
    assert first["repeated"] == RetrieverSettings().repeated
    assert 0 < first["recall"] <= 1
    for trial in found.trials[1:]:
        assert trial["weights"][3] in GRID["text"]
        assert trial["per_advertiser"] in GRID["per_advertiser"]
    assert tune_retriever(study, trials=4, budgets=(2,)).trials == found.trials


def test_the_defaults_are_on_the_grid() -> None:
    settings = RetrieverSettings()
    weights = dict(zip(list(GRID)[:4], settings.weights, strict=True))
    for name, values in GRID.items():
        assert weights.get(name, getattr(settings, name, None)) in values
