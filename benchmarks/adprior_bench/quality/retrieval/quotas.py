"""Retrieval under a quota: the same budget of items, with the forecast and without.

Each case's forecast becomes the targeting filter of a conventional retriever; the client's own
function (`adprior_client.blending`) blends the two lists under a quota. The measures are the day's
items and advertisers in the blended list, and its concentration on few advertisers.

The reserved slots go to advertisers that the list lacks, which by itself finds more advertisers.
The control fills the same slots without a forecast, with the retriever's own best items of such
advertisers: only the difference to this control is due to the forecast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import NONE, EncodedCase, Float64Array
from adprior_bench.quality.retrieval.retriever import Query, Retriever
from adprior_bench.quality.study import Study
from adprior_client.blending import RetrievedItem, advertiser_concentration, blend_retrieved
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

BUDGETS: Final = (50, 100)
QUOTAS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
MEASURES: Final = ("items", "advertisers", "herfindahl", "top_share")

_Filter: TypeAlias = tuple[npt.NDArray[np.int64], list[RetrievedItem]]
"""The advertisers that may fill the reserved slots, and the retriever's items of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendSettings:
    """The use of a forecast.

    Attributes:
        budgets: Numbers of retrieved items, measured one by one.
        quotas: Shares of the budget for the forecast; they include 0, for comparison.
        advertisers: Number of most probable advertisers in the filter.
        per_advertiser: Limit of `adprior_client.blending.blend_retrieved`.
    """

    budgets: tuple[int, ...] = BUDGETS
    quotas: tuple[float, ...] = QUOTAS
    advertisers: int = 20
    per_advertiser: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The day's items and advertisers of a case.

    Attributes:
        places: The items' places in the corpus.
        items: Number of items, in the corpus or not.
        advertisers: Rows of the catalogue.
        named: Number of advertisers, in the catalogue or not.
    """

    places: frozenset[int]
    items: int
    advertisers: frozenset[int]
    named: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuotaResult:
    """Figures of every case under every budget and quota.

    Attributes:
        settings: The budgets and quotas.
        values: By name in `MEASURES`, float64 [budgets, quotas, cases]: the share of the day's
            items in the list (NaN for a day without items), the share of the day's advertisers, the
            list's Herfindahl index and its top advertiser's share.
        items: Number of items of all cases.
        items_outside: Those outside the corpus, which no retriever can find; they count as missed.
    """

    settings: BlendSettings
    values: dict[str, Float64Array]
    items: int
    items_outside: int

    def at(self, budget: int, quota: float, measure: str = "advertisers") -> Float64Array:
        """Return the values of all cases: float64 [cases]."""
        place = self.settings.budgets.index(budget), self.settings.quotas.index(quota)
        values: Float64Array = self.values[measure][place]
        return values

    def mean(self, budget: int, quota: float, measure: str = "advertisers") -> float:
        """Return the mean over the cases that have the value, NaN without any."""
        values = self.at(budget, quota, measure)
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    def best_quota(self, budget: int, measure: str = "advertisers") -> float:
        """Return the quota with the highest mean, the smallest one if several have it."""
        quotas = sorted(self.settings.quotas)
        return max(quotas, key=lambda quota: self.mean(budget, quota, measure))

    def gain(self, budget: int, quota: float, measure: str = "advertisers") -> Float64Array:
        """Return the difference to quota 0, for paired comparisons: float64 [cases]."""
        return self.at(budget, quota, measure) - self.at(budget, 0.0, measure)


def wanted_items(retriever: Retriever, study: Study, case: EncodedCase) -> Wanted:
    """Return what a retrieved list should contain for a case."""
    user, history = case.user, study.histories[case.user.user_id]
    end = int(np.searchsorted(user.days, case.day + 1))
    items = {
        history.items[place]
        for place in range(case.stop, end)
        if user.rows[place] != NONE and history.items[place]
    }
    places = retriever.places
    return Wanted(
        places=frozenset(places[item] for item in items if item in places),
        items=len(items),
        advertisers=frozenset(case.targets.tolist()),
        named=len(case.targets) + case.missed,
    )


def measure_quotas(
    retriever: Retriever,
    study: Study,
    cases: Sequence[EncodedCase],
    probabilities: npt.NDArray[np.floating[Any]] | None,
    settings: BlendSettings | None = None,
) -> QuotaResult:
    """Blend each case's lists under every budget and quota, and measure the result.

    Args:
        retriever: The conventional one.
        study: Has the cases' histories.
        cases: Cases of validation or test users.
        probabilities: [cases, advertisers], the forecasts; a row of 0 is no forecast. None fills
            the slots with the retriever's own best items of advertisers that the list lacks.
        settings: The use of forecasts.

    Raises:
        InvalidInputError: The probabilities have another shape.
    """
    settings = settings or BlendSettings()
    expected = (len(cases), study.training.advertisers)
    if probabilities is not None and probabilities.shape != expected:
        raise InvalidInputError(
            f"forecasts of shape {probabilities.shape}, expected (cases, advertisers) = {expected}"
        )
    queries = retriever.queries(study, cases)
    conventional = retriever.retrieve(queries, max(settings.budgets))
    filters = (
        _unfiltered(retriever, queries, study.training.advertisers, settings)
        if probabilities is None
        else _filters(retriever, queries, probabilities, settings)
    )
    wanted = [wanted_items(retriever, study, case) for case in cases]
    shape = (len(MEASURES), len(settings.budgets), len(settings.quotas), len(cases))
    values = np.zeros(shape)
    shown = track(filters, total=len(cases), unit="case", desc="retrieval under quotas")
    for index, (advertisers, filtered) in enumerate(shown):
        for row, budget in enumerate(settings.budgets):
            for column, quota in enumerate(settings.quotas):
                blended = blend_retrieved(
                    conventional[index],
                    filtered,
                    advertisers,
                    budget=budget,
                    quota=quota,
                    per_advertiser=settings.per_advertiser,
                )
                values[:, row, column, index] = _measure(blended, wanted[index])
    return QuotaResult(
        settings=settings,
        values=dict(zip(MEASURES, values, strict=True)),
        items=sum(each.items for each in wanted),
        items_outside=sum(each.items - len(each.places) for each in wanted),
    )


def _filters(
    retriever: Retriever,
    queries: Sequence[Query],
    probabilities: npt.NDArray[np.floating[Any]],
    settings: BlendSettings,
) -> Iterator[_Filter]:
    # The limit per advertiser may skip any item, so retrieve a whole budget for each advertiser.
    count = max(settings.budgets)
    count *= 1 if settings.per_advertiser is None else settings.advertisers
    for query, row in zip(queries, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[: settings.advertisers]
        chosen = order[row[order] > 0]
        yield chosen, retriever.retrieve_filtered(query, chosen, count)


def _unfiltered(
    retriever: Retriever, queries: Sequence[Query], advertisers: int, settings: BlendSettings
) -> Iterator[_Filter]:
    # With one item for each advertiser, a budget holds enough that the conventional list lacks.
    limited = retriever.limited(settings.per_advertiser)
    everyone = np.arange(advertisers, dtype=np.int64)
    return ((everyone, found) for found in limited.retrieve(queries, max(settings.budgets)))


def _measure(blended: Sequence[Any], wanted: Wanted) -> tuple[float, float, float, float]:
    """Return `MEASURES` of a list."""
    advertisers = [item.advertiser_id for item in blended]
    concentration = advertiser_concentration(advertisers)
    hits = len(wanted.places.intersection(item.item_id for item in blended))
    return (
        hits / wanted.items if wanted.items else float("nan"),
        len(wanted.advertisers.intersection(advertisers)) / wanted.named,
        concentration.herfindahl,
        concentration.top_share,
    )
