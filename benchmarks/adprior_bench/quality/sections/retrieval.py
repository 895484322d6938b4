"""What the forecast adds to retrieval under a quota."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.report.schema import Section
from adprior_bench.quality.retrieval import QuotaResult

__all__ = ["RetrievalFigures", "retrieval_section"]

_DIFFERENCE: Final[Any] = {"format": "points", "digits": 2, "signed": True}
_MEASURES = (
    ("products", "purchased products found", "percent", 2),
    ("advertisers", "purchased advertisers found", "percent", 2),
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
        product_gains: Likewise, of the purchased products.
        section: For the report.
    """

    quotas: Mapping[int, float]
    gains: Mapping[int, Estimate]
    product_gains: Mapping[int, Estimate]
    section: Section


def retrieval_section(
    validation: QuotaResult, test: QuotaResult, bootstrap: UserBootstrap
) -> RetrievalFigures:
    """Choose quotas on validation cases, and measure them on test cases.

    Args:
        validation: Of the validation cases.
        test: Of the test cases.
        bootstrap: Over the test cases' users.
    """
    budgets = test.settings.budgets
    quotas = {budget: validation.best_quota(budget) for budget in budgets}
    gains: dict[str, dict[int, Estimate]] = {"advertisers": {}, "products": {}}
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
    outside = test.items_outside / test.items if test.items else float("nan")
    return RetrievalFigures(
        quotas=quotas,
        gains=gains["advertisers"],
        product_gains=gains["products"],
        section={
            "title": "Retrieval",
            "notes": [
                "A conventional retriever over products: two towers of item vectors with an exact "
                "index, popularity and the user's own repeat purchases. The forecast's "
                f"{test.settings.advertisers} most probable advertisers become its targeting "
                "filter, and the filtered list takes a quota of the budget, without duplicates. "
                "The quota is chosen on validation cases by the advertisers found: an advertising "
                "budget is an advertiser's, and product ids hardly recur.",
                f"{outside:.1%} of the products that test users bought were never bought by "
                "training users before the cut: nobody can retrieve those, and they are missed.",
            ],
            "content": [
                {
                    "kind": "table",
                    "title": "Blended lists",
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
                *(
                    _plot(budget, place, test, bootstrap, quotas[budget])
                    for place, budget in enumerate(budgets)
                ),
            ],
        },
    )


def _mean(bootstrap: UserBootstrap, values: Any) -> Any:
    known = np.isfinite(values)
    return bootstrap.mean(np.where(known, values, 0.0), known)


def _plot(
    budget: int, place: int, test: QuotaResult, bootstrap: UserBootstrap, chosen: float
) -> Any:
    return {
        "kind": "lines",
        "name": f"retrieval_{budget}",
        "title": f"Found among {budget} products",
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
            for measure, title in (("products", "products"), ("advertisers", "their advertisers"))
        ],
        "mark": chosen,
        "mark_label": "chosen on validation users",
    }
