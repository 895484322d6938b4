"""Tuning of the conventional retriever on validation users, without any forecast.

A random search over a small grid, which starts with the defaults. It maximises the share of the
day's items in the retriever's own list, averaged over the budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from adprior_bench.quality.retrieval.quotas import BUDGETS, wanted_items
from adprior_bench.quality.retrieval.retriever import Retriever, RetrieverSettings, fit_retriever
from adprior_bench.quality.study import Study
from adprior_runtime.terminal.progress import track

_SEED: Final = 5
GRID: Final[dict[str, Sequence[Any]]] = {
    "advertiser": (0.0, 0.2, 0.5, 1.0),
    "category": (0.0, 0.2, 0.5, 1.0),
    "item": (0.0, 0.3, 0.6, 1.0),
    "text": (0.3, 0.6, 1.0, 1.5),
    "popularity": (0.3, 0.6, 1.0, 1.5),
    "advertiser_popularity": (0.0, 0.2, 0.5, 1.0),
    "repeated": (2.0, 4.0, 8.0),
    "half_life_days": (180.0, 365.0, 730.0, 1500.0),
    "per_advertiser": (None, 10, 5, 3, 2, 1),
}
"""The values of each setting; the first four are `RetrieverSettings.weights`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedRetriever:
    """The retriever with the best settings, and all trials: settings and ``recall``, in order."""

    retriever: Retriever
    trials: Sequence[dict[str, Any]]


def tune_retriever(
    study: Study, *, trials: int, budgets: Sequence[int] = BUDGETS, seed: int = _SEED
) -> TunedRetriever:
    """Choose settings on the validation cases.

    ``trials`` is the number of settings, at least 1; test cases have no influence.

    Raises:
        InvalidInputError: No training event has both an item and an advertiser.
    """
    start = fit_retriever(study)
    random = np.random.default_rng(seed)
    tried, best, highest = [], start, -1.0
    for trial in track(range(trials), unit="setting", desc="tuning the retriever"):
        settings = _draw(random) if trial else start.settings
        retriever = start.with_settings(settings)
        recall = _recall(retriever, study, budgets)
        tried.append(asdict(settings) | {"recall": recall})
        if recall > highest:
            best, highest = retriever, recall
    return TunedRetriever(retriever=best, trials=tried)


def _draw(random: np.random.Generator) -> RetrieverSettings:
    values = {name: values[random.integers(len(values))] for name, values in GRID.items()}
    advertiser, category, item, text = (values.pop(name) for name in list(values)[:4])
    return replace(RetrieverSettings(), weights=(advertiser, category, item, text), **values)


def _recall(retriever: Retriever, study: Study, budgets: Sequence[int]) -> float:
    lists = retriever.retrieve(retriever.queries(study, study.validation), max(budgets))
    shares = []
    for case, items in zip(study.validation, lists, strict=True):
        wanted = wanted_items(retriever, study, case)
        shares += [
            len(wanted.places.intersection(item.item_id for item in items[:budget])) / wanted.items
            for budget in budgets
            if wanted.items
        ]
    return float(np.mean(shares)) if shares else 0.0
