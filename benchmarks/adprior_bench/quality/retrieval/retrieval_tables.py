"""What the forecast adds to retrieval under a quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.retrieval.quotas import QuotaResult
from adprior_bench.quality.retrieval.retriever_tuning import RetrieverTuning
from adprior_bench.report.schema import Section

_DIFFERENCE: Final[Any] = {"format": "points", "digits": 2, "signed": True}
_MEASURES = (
    ("items", "items found", "percent", 2),
    ("advertisers", "advertisers found", "percent", 2),
    ("herfindahl", "Herfindahl index", "decimal", 4),
    ("top_share", "top advertiser's share", "percent", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetrievalFigures:
    """The chosen quotas and what they add.

    Attributes:
        quotas: By budget, chosen on validation cases by the advertisers found.
        gains: By budget, the share of the day's advertisers found at the chosen quota minus at
            none, on test cases.
        item_gains: Likewise, of the items.
        over: By the title of what else fills the reserved places, by budget: the share of the day's
            advertisers found by the forecast minus that, each at the quota chosen for it.
        section: For the report.
    """

    quotas: Mapping[int, float]
    gains: Mapping[int, Estimate]
    item_gains: Mapping[int, Estimate]
    over: Mapping[str, Mapping[int, Estimate]]
    section: Section


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filled:
    """What fills the reserved places, measured on the validation and the test cases."""

    title: str
    validation: QuotaResult
    test: QuotaResult


def retrieval_section(
    forecast: Filled,
    others: Sequence[Filled],
    tuning: RetrieverTuning,
    bootstrap: UserBootstrap,
) -> RetrievalFigures:
    """Choose quotas on validation cases, and measure them on test cases.

    Args:
        forecast: The one in question.
        others: What else could fill the places.
        tuning: How the conventional retriever's settings were chosen.
        bootstrap: Over the test cases' users.
    """
    validation, test = forecast.validation, forecast.test
    budgets = test.settings.budgets
    quotas = {budget: validation.best_quota(budget) for budget in budgets}
    gains: dict[str, dict[int, Estimate]] = {"advertisers": {}, "items": {}}
    rows = []
    for place, budget in enumerate(budgets):
        for column, quota in enumerate(test.settings.quotas):
            cells: list[Any] = [budget, quota, validation.means("advertisers")[place, column]]
            for measure, *_ in _MEASURES:
                cells.append(estimate(_mean(bootstrap, test.values[measure][place, column])))
            for measure, found in gains.items():
                gain = estimate(_mean(bootstrap, test.gain(budget, quota, measure)))
                cells.append(gain if quota else None)
                if quota == quotas[budget]:
                    found[budget] = gain
            rows.append(cells)
    measured: list[Any] = [
        {"title": title, "format": kind, "digits": digits} for _, title, kind, digits in _MEASURES
    ]
    rivals = _rivals(forecast, others, bootstrap)
    outside = test.items_outside / test.items if test.items else float("nan")
    return RetrievalFigures(
        quotas=quotas,
        gains=gains["advertisers"],
        item_gains=gains["items"],
        over=rivals.over,
        section={
            "title": "Retrieval",
            "notes": [
                "A conventional retriever over items: two towers of item vectors with an exact "
                "index, popularity and what the user acted on before. The forecast's "
                f"{test.settings.advertisers} most probable advertisers become its targeting "
                "filter, and the filtered list takes a quota of the budget, without duplicates"
                f"{_limits(forecast, tuning)}. "
                "The quota is chosen on validation cases by the advertisers found: an advertising "
                "budget is an advertiser's.",
                f"{outside:.1%} of the items that test users acted on were never acted on by "
                "training users before the cut: nobody can retrieve those, and they are missed.",
            ],
            "content": [
                {
                    "kind": "table",
                    "title": "Blended lists",
                    "detail": True,
                    "columns": [
                        {"title": "budget", "format": "count"},
                        {"title": "quota", "format": "percent", "digits": 0},
                        {"title": "validation: advertisers", "format": "percent", "digits": 2},
                        *measured,
                        *({"title": f"{measure}, against none"} | _DIFFERENCE for measure in gains),
                    ],
                    "rows": rows,
                    "highlight": [
                        place for place, row in enumerate(rows) if row[1] == quotas[row[0]]
                    ],
                    "note": "The marked quotas were chosen on validation cases.",
                },
                rivals.table,
                _tuning_table(tuning),
                *(
                    _plot(budget, place, test, bootstrap, quotas[budget])
                    for place, budget in enumerate(budgets)
                ),
            ],
        },
    )


def _limits(forecast: Filled, tuning: RetrieverTuning) -> str:
    """Say how many items one advertiser may have."""
    settings, own = forecast.test.settings, tuning.settings.per_advertiser
    if settings.per_advertiser is None:
        return ""
    most = settings.advertisers * settings.per_advertiser
    return (
        f": at most {settings.per_advertiser} of an advertiser, while the list has fewer of it, so "
        f"{most} at most; the retriever's own list has "
        + ("any number" if own is None else f"at most {own}")
        + " of one"
    )


def _tuning_table(tuning: RetrieverTuning) -> Any:
    weights = ("advertiser", "category", "item", "text")
    others = ("popularity", "advertiser_popularity", "repeated", "half_life_days")
    recalls = [trial["recall"] for trial in tuning.trials]
    return {
        "kind": "table",
        "title": "The conventional retriever's settings, on validation users",
        "detail": True,
        "columns": [
            *({"title": name.replace("_", " ")} for name in (*weights, *others)),
            {"title": "of one advertiser"},
            {"title": "items found", "format": "percent", "digits": 2},
        ],
        "rows": [
            [
                *(f"{weight:g}" for weight in trial["weights"]),
                *(f"{trial[name]:g}" for name in others),
                "any number" if trial["per_advertiser"] is None else str(trial["per_advertiser"]),
                trial["recall"],
            ]
            for trial in tuning.trials
        ],
        "highlight": [recalls.index(max(recalls))],
        "note": "A random search, before any forecast; the mean over the budgets. Weights of the "
        "cosine of what items have of an advertiser, a category, an item and a text.",
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rivals:
    over: Mapping[str, Mapping[int, Estimate]]
    table: Any


def _rivals(forecast: Filled, others: Sequence[Filled], bootstrap: UserBootstrap) -> _Rivals:
    """Compare the forecast with what else could fill the same places."""
    over: dict[str, dict[int, Estimate]] = {filled.title: {} for filled in others}
    rows: list[list[Any]] = []
    highlight = []
    for place, budget in enumerate(forecast.test.settings.budgets):
        ours = _chosen(forecast, budget, "advertisers")
        highlight.append(len(rows))
        for filled in (forecast, *others):
            theirs = _chosen(filled, budget, "advertisers")
            ahead = None
            if filled is not forecast:
                ahead = over[filled.title][budget] = estimate(_mean(bootstrap, ours - theirs))
            quota = filled.validation.best_quota(budget)
            column = filled.test.settings.quotas.index(quota)
            rows.append(
                [
                    budget,
                    filled.title,
                    quota,
                    filled.validation.means("advertisers")[place, column],
                    estimate(_mean(bootstrap, theirs)),
                    estimate(_mean(bootstrap, filled.test.gain(budget, quota))),
                    ahead,
                    estimate(_mean(bootstrap, filled.test.gain(budget, quota, "items"))),
                    estimate(_mean(bootstrap, _chosen(filled, budget, "herfindahl"))),
                ]
            )
    return _Rivals(
        over=over,
        table={
            "kind": "table",
            "title": "The reserved places, filled by the forecast and otherwise",
            "columns": [
                {"title": "budget", "format": "count"},
                {"title": "filled by"},
                {"title": "quota", "format": "percent", "digits": 0},
                {"title": "validation: advertisers", "format": "percent", "digits": 2},
                {"title": "advertisers found", "format": "percent", "digits": 2},
                {"title": "advertisers, against none"} | _DIFFERENCE,
                {"title": "the forecast minus this"} | _DIFFERENCE,
                {"title": "items, against none"} | _DIFFERENCE,
                {"title": "Herfindahl index", "format": "decimal", "digits": 4},
            ],
            "rows": rows,
            "highlight": highlight,
            "note": "Each at the quota that validation users choose for it. The places go to "
            "advertisers that the list lacks, which finds more of them whoever fills them: so the "
            "retriever's own best items of such advertisers show what the forecast itself adds.",
        },
    )


def _chosen(filled: Filled, budget: int, measure: str) -> Any:
    """Return each test case's figure at the quota that validation users chose."""
    settings = filled.test.settings
    quota = filled.validation.best_quota(budget)
    return filled.test.values[measure][settings.budgets.index(budget), settings.quotas.index(quota)]


def _mean(bootstrap: UserBootstrap, values: Any) -> Any:
    known = np.isfinite(values)
    return bootstrap.mean(np.where(known, values, 0.0), known)


def _plot(
    budget: int, place: int, test: QuotaResult, bootstrap: UserBootstrap, chosen: float
) -> Any:
    return {
        "kind": "lines",
        "name": f"retrieval_{budget}",
        "title": f"Found among {budget} items",
        "x": list(test.settings.quotas),
        "x_label": "quota of the forecast",
        "x_format": "percent",
        "value_label": "share found",
        "format": "percent",
        "digits": 1,
        "series": [
            {
                "label": title,
                "estimates": [
                    estimate(_mean(bootstrap, test.values[measure][place, column]))
                    for column in range(len(test.settings.quotas))
                ],
                "highlight": measure == "advertisers",
            }
            for measure, title in (("items", "items"), ("advertisers", "their advertisers"))
        ],
        "mark": chosen,
        "mark_label": "chosen on validation users",
    }
