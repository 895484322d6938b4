"""Choosing the conventional retriever's settings on validation users, before any forecast.

A random search of a small grid: as many trials as are asked for, the defaults first. What counts is
the share of the items acted on that the retriever's own list has, the mean over the budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.retrieval.item_vectors import ItemCorpus, ItemVectors
from adprior_bench.quality.retrieval.quotas import wanted_items
from adprior_bench.quality.retrieval.retriever import Retriever, RetrieverSettings
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
"""Each setting's values; the first four are `RetrieverSettings.weights`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieverTuning:
    """What a search found.

    Attributes:
        settings: The best.
        trials: Each trial's settings and ``recall``, in the order they were tried.
    """

    settings: RetrieverSettings
    trials: tuple[dict[str, Any], ...]


def tune_retriever(
    study: Study, *, trials: int, budgets: Sequence[int] = (50, 100), seed: int = _SEED
) -> RetrieverTuning:
    """Choose settings on the study's validation cases.

    Args:
        study: Its test cases are not looked at.
        trials: Settings tried, `RetrieverSettings`' defaults included; at least 1.
        budgets: Items retrieved.
        seed: Of the search.
    """
    corpus = ItemCorpus.learn(study)
    start = RetrieverSettings()
    vectors = ItemVectors(study, corpus, start.sizes)
    random = np.random.default_rng(seed)
    tried, best, highest = [], start, -1.0
    for trial in track(range(trials), unit="setting", desc="tuning the retriever"):
        settings = _drawn(random, start) if trial else start
        recall = _recall(Retriever(corpus, vectors, settings), study, study.validation, budgets)
        tried.append(asdict(settings) | {"recall": recall})
        if recall > highest:
            best, highest = settings, recall
    return RetrieverTuning(settings=best, trials=tuple(tried))


def _drawn(random: np.random.Generator, start: RetrieverSettings) -> RetrieverSettings:
    values = {name: values[random.integers(len(values))] for name, values in GRID.items()}
    advertiser, category, item, text = (values.pop(name) for name in list(values)[:4])
    return replace(start, weights=(advertiser, category, item, text), **values)


def _recall(
    retriever: Retriever, study: Study, cases: Sequence[EncodedCase], budgets: Sequence[int]
) -> float:
    lists = retriever.retrieve(retriever.queries(study, cases), max(budgets))
    shares = []
    for case, items in zip(cases, lists, strict=True):
        wanted = wanted_items(retriever, study, case)
        shares += [
            len(wanted.places.intersection(item.item_id for item in items[:budget])) / wanted.items
            for budget in budgets
            if wanted.items
        ]
    return float(np.mean(shares)) if shares else 0.0
