"""What a forecast adds to retrieval: the same budget of items with it and without.

Each case's forecast becomes the targeting filter of a conventional retriever, and the two lists are
blended under a quota by the client's own function (`adprior_client.blending`). Counted are the
items acted on and their advertisers that the blended list has, and how few advertisers it is
concentrated on. The quota is chosen on validation cases, and compared with none on others.

The reserved places go to advertisers that the list lacks, and that alone finds more of them. So the
same places can be filled without any forecast, with the retriever's own best items of such
advertisers: what a forecast adds to that is its own.
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
from adprior_client.blending import (
    BlendedItem,
    ItemSource,
    RetrievedItem,
    advertiser_concentration,
    blend_retrieved,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

QUOTAS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
_Filter: TypeAlias = tuple[npt.NDArray[np.int64], list[RetrievedItem]]
"""The advertisers that may fill the reserved places, and the retriever's items of theirs."""

MEASURES: Final = ("items", "advertisers", "herfindahl", "top_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendSettings:
    """How a forecast is used.

    Attributes:
        budgets: Items retrieved, one measurement each.
        quotas: Shares of the budget for the forecast; 0 must be among them, to compare with.
        advertisers: How many of the most probable advertisers make the filter.
        per_advertiser: See `adprior_client.blending.blend_retrieved`.
    """

    budgets: tuple[int, ...] = (50, 100)
    quotas: tuple[float, ...] = QUOTAS
    advertisers: int = 20
    per_advertiser: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a case's user acted on that day, of what has an advertiser.

    Attributes:
        places: Corpus places of the day's items.
        items: How many items the day has, in the corpus or not.
        advertisers: Rows of the day's advertisers in the catalogue.
        named: How many advertisers the day has, in the catalogue or not.
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
        values: For each of `MEASURES`, float64 [budgets, quotas, cases]: the share of the day's
            items that the list has (NaN for a day whose log names no item), the share of the day's
            advertisers, the list's Herfindahl index and its top advertiser's share.
        forecast_share: float64 [budgets, quotas, cases], of the list that is there for the
            forecast's sake.
        items: How many items the cases have in all.
        items_outside: Of them, outside the corpus: nobody can retrieve these, and they are missed.
    """

    settings: BlendSettings
    values: dict[str, Float64Array]
    forecast_share: Float64Array
    items: int
    items_outside: int

    def means(self, measure: str) -> Float64Array:
        """Return float64 [budgets, quotas]: means over the cases that have the figure, else NaN."""
        has = ~np.isnan(self.values[measure][0, 0])
        if not has.any():
            return np.full(self.values[measure].shape[:2], np.nan)
        means: Float64Array = self.values[measure][:, :, has].mean(axis=2)
        return means

    def best_quota(self, budget: int, measure: str = "advertisers") -> float:
        """Return the quota with the highest mean; of equals the smallest."""
        means = self.means(measure)[self.settings.budgets.index(budget)]
        ordered = sorted(zip(self.settings.quotas, means.tolist(), strict=True))
        return max(ordered, key=lambda pair: pair[1])[0]

    def gain(self, budget: int, quota: float, measure: str = "advertisers") -> Float64Array:
        """Return what a quota adds to quota 0, float64 [cases], for paired comparisons."""
        values = self.values[measure][self.settings.budgets.index(budget)]
        gain: Float64Array = (
            values[self.settings.quotas.index(quota)] - values[self.settings.quotas.index(0.0)]
        )
        return gain


def wanted_items(retriever: Retriever, study: Study, case: EncodedCase) -> Wanted:
    """Return what a retrieved list should have for a case."""
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
    """Blend each case's lists under every budget and quota, and count.

    Args:
        retriever: The conventional one.
        study: For the cases' histories.
        cases: Of validation or test users.
        probabilities: [cases, advertisers], the forecasts; a row of 0 is no forecast. None fills
            the places with the retriever's own best items of advertisers that the list lacks.
        settings: What to measure.

    Raises:
        InvalidInputError: The probabilities are of another shape, or quota 0 is missing.
    """
    settings = settings or BlendSettings()
    expected = (len(cases), study.training.advertisers)
    if probabilities is not None and probabilities.shape != expected:
        raise InvalidInputError(
            f"forecasts of shape {probabilities.shape}, expected (cases, advertisers) = {expected}"
        )
    if 0.0 not in settings.quotas:
        raise InvalidInputError(f"quotas {settings.quotas}: expected 0 among them")
    count = max(settings.budgets)
    queries = retriever.queries(study, cases)
    conventional = retriever.retrieve(queries, count)
    filters = (
        _any_advertiser(retriever, queries, expected[1], count, settings)
        if probabilities is None
        else _forecast_filters(retriever, queries, probabilities, count, settings)
    )
    wanted = [wanted_items(retriever, study, case) for case in cases]
    shape = (len(settings.budgets), len(settings.quotas), len(cases))
    values = {measure: np.zeros(shape) for measure in (*MEASURES, "forecast_share")}
    shown = track(filters, total=len(cases), unit="case", desc="retrieval under quotas")
    for index, (chosen, filtered) in enumerate(shown):
        found = _measure_case(conventional[index], filtered, chosen, wanted[index], settings)
        for measure, figures in found.items():
            values[measure][:, :, index] = figures
    return QuotaResult(
        settings=settings,
        forecast_share=values.pop("forecast_share"),
        values=values,
        items=sum(item.items for item in wanted),
        items_outside=sum(item.items - len(item.places) for item in wanted),
    )


def _forecast_filters(
    retriever: Retriever,
    queries: Sequence[Query],
    probabilities: npt.NDArray[np.floating[Any]],
    count: int,
    settings: BlendSettings,
) -> Iterator[_Filter]:
    # A limit per advertiser may pass over any item, so it is given a budget of each advertiser.
    count *= 1 if settings.per_advertiser is None else settings.advertisers
    for query, row in zip(queries, probabilities, strict=True):
        chosen = _most_probable(row, settings.advertisers)
        yield chosen, retriever.retrieve_filtered(query, chosen, count)


def _any_advertiser(
    retriever: Retriever,
    queries: Sequence[Query],
    advertisers: int,
    count: int,
    settings: BlendSettings,
) -> Iterator[_Filter]:
    # Of one item each, a budget has enough that the conventional list lacks; of more, maybe not.
    lists = retriever.limited(settings.per_advertiser).retrieve(queries, count)
    everyone = np.arange(advertisers, dtype=np.int64)
    return ((everyone, found) for found in lists)


def _most_probable(
    probabilities: npt.NDArray[np.floating[Any]], count: int
) -> npt.NDArray[np.int64]:
    order = np.argsort(-probabilities, kind="stable")[:count]
    chosen: npt.NDArray[np.int64] = order[probabilities[order] > 0]
    return chosen


def _measure_case(
    conventional: Sequence[RetrievedItem],
    filtered: Sequence[RetrievedItem],
    advertisers: npt.NDArray[np.int64],
    wanted: Wanted,
    settings: BlendSettings,
) -> dict[str, Float64Array]:
    """Return each measure: float64 [budgets, quotas]."""
    shape = (len(settings.budgets), len(settings.quotas))
    found = {measure: np.zeros(shape) for measure in (*MEASURES, "forecast_share")}
    for row, budget in enumerate(settings.budgets):
        for column, quota in enumerate(settings.quotas):
            blended = blend_retrieved(
                conventional,
                filtered,
                advertisers,
                budget=budget,
                quota=quota,
                per_advertiser=settings.per_advertiser,
            )
            for measure, value in _figures(blended, wanted).items():
                found[measure][row, column] = value
    return found


def _figures(blended: Sequence[BlendedItem], wanted: Wanted) -> dict[str, float]:
    advertisers = [item.advertiser_id for item in blended]
    concentration = advertiser_concentration(advertisers)
    forecasts = sum(item.source is ItemSource.FORECAST for item in blended)
    hits = len(wanted.places.intersection(item.item_id for item in blended))
    return {
        "items": hits / wanted.items if wanted.items else float("nan"),
        "advertisers": len(wanted.advertisers.intersection(advertisers)) / wanted.named,
        "herfindahl": concentration.herfindahl,
        "top_share": concentration.top_share,
        "forecast_share": forecasts / len(blended),
    }
