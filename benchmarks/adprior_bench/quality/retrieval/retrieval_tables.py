"""The report's section on retrieval under a quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adprior_bench.quality.intervals import Estimate, UserBootstrap, estimate
from adprior_bench.quality.retrieval.places import (
    Filled,
    Places,
    case_mean,
    choose_places,
    places_table,
)
from adprior_bench.quality.retrieval.retriever_tuning import TunedRetriever
from adprior_bench.report.cells import cell_text
from adprior_bench.report.schema import Cell, LinesPlot, Numbers, Section, Table
from adprior_bench.report.tables import COUNT, decimal, make_table, percent, points

_FORMATS: Final[Mapping[str, Numbers]] = {
    "budget": COUNT,
    "quota": percent(0),
    "advertisers found, validation": percent(2),
    "advertisers found": percent(2),
    "advertisers, change": points(2),
    "items found": percent(2),
    "items, change": points(2),
    "Herfindahl index": decimal(4),
    "top advertiser's share": percent(1),
    "llm minus this row": points(2),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetrievalFigures:
    """The choice at each budget, and the section of the report."""

    places: Mapping[int, Places]
    section: Section


def retrieval_section(
    ours: Sequence[Filled],
    rivals: Sequence[Filled],
    control: Filled,
    tuning: TunedRetriever,
    bootstrap: UserBootstrap,
) -> RetrievalFigures:
    """Choose quotas and fillings on validation cases, and measure them on test cases.

    Args:
        ours: Ways to fill the reserved places with the model's forecast; the first one is the
            forecast as it is.
        rivals: Ways with other forecasts.
        control: The same places filled without a forecast.
        tuning: The retriever.
        bootstrap: Over the test cases' users.
    """
    forecast = ours[0]
    places = choose_places(ours, rivals, control, bootstrap)
    return RetrievalFigures(
        places=places,
        section={
            "title": "Retrieval",
            "notes": _notes(forecast, tuning),
            "content": [
                places_table(places),
                _comparison([*ours, control, *rivals], bootstrap),
                _quota_table(forecast, bootstrap),
                _tuning_table(tuning),
                *(_plot(budget, forecast, bootstrap) for budget in forecast.test.settings.budgets),
            ],
        },
    )


def _notes(forecast: Filled, tuning: TunedRetriever) -> list[str]:
    test = forecast.test
    outside = test.items_outside / test.items if test.items else float("nan")
    limit, own = test.settings.per_advertiser, tuning.retriever.settings.per_advertiser
    found = [
        "The conventional retriever scores items by the similarity of item and user vectors (two "
        "towers with an exact index), by popularity and by the user's own past items. It also "
        f"makes a filtered list: items of the {test.settings.advertisers} most probable "
        "advertisers of a forecast only. The filtered list fills a quota of the budget, without "
        "duplicates. Validation cases choose the quota that finds the most advertisers.",
        f"{cell_text(outside, percent(1))} of the test users' items were never acted "
        "on by a training user before the cut: no retriever can find them, and they count as "
        "missed.",
    ]
    if limit is not None:
        others = "any number of items" if own is None else f"at most {own} items"
        found.append(
            f"The filtered list brings each advertiser to at most {limit} in the whole list, and "
            f"has at most {test.settings.advertisers * limit} items in total. The retriever's own "
            f"list has {others} of each advertiser."
        )
    return found


def _row(filled: Filled, budget: int, quota: float, bootstrap: UserBootstrap) -> dict[str, Cell]:
    test = filled.test

    def mean(measure: str) -> Estimate:
        return estimate(case_mean(bootstrap, test.at(budget, quota, measure)))

    def change(measure: str) -> Estimate | None:
        gain = test.gain(budget, quota, measure)
        return estimate(case_mean(bootstrap, gain)) if quota else None

    return {
        "budget": budget,
        "places filled by": filled.title,
        "quota": quota,
        "advertisers found, validation": filled.validation.mean(budget, quota),
        "advertisers found": mean("advertisers"),
        "advertisers, change": change("advertisers"),
        "items found": mean("items"),
        "items, change": change("items"),
        "Herfindahl index": mean("herfindahl"),
        "top advertiser's share": mean("top_share"),
    }


def _quota_table(forecast: Filled, bootstrap: UserBootstrap) -> Table:
    settings = forecast.test.settings
    return make_table(
        "Lists with a quota for the forecast",
        [
            _row(forecast, budget, quota, bootstrap)
            for budget in settings.budgets
            for quota in settings.quotas
        ],
        _FORMATS,
        highlight=lambda row: row["quota"] == forecast.quota(row["budget"]),
        note="Changes are relative to a quota of 0. Validation cases chose the highlighted quotas.",
        detail=True,
    )


def _comparison(all_filled: Sequence[Filled], bootstrap: UserBootstrap) -> Table:
    first = all_filled[0]

    def over(other: Filled, budget: int) -> Estimate | None:
        if other is first:
            return None
        return estimate(case_mean(bootstrap, first.chosen(budget) - other.chosen(budget)))

    return make_table(
        "Reserved places filled by the forecast, without a forecast, and by other forecasts",
        [
            _row(filled, budget, filled.quota(budget), bootstrap)
            | {"llm minus this row": over(filled, budget)}
            for budget in first.test.settings.budgets
            for filled in all_filled
        ],
        _FORMATS,
        highlight=lambda row: row["places filled by"] == first.title,
        note="Each row is measured at the quota that validation users chose for it. Changes are "
        "relative to a quota of 0. The reserved places go to advertisers that the list lacks, so "
        "every way to fill them can find more advertisers. The difference to the row without a "
        "forecast is due to the forecast itself.",
    )


def _tuning_table(tuning: TunedRetriever) -> Table:
    best = max(trial["recall"] for trial in tuning.trials)
    return make_table(
        "Settings of the conventional retriever, on validation users",
        [
            {name.replace("_", " "): str(value) for name, value in trial.items()}
            | {"recall": trial["recall"]}
            for trial in tuning.trials
        ],
        {"recall": percent(2)},
        highlight=lambda row: row["recall"] == best,
        note="Settings were drawn at random and compared without any forecast. Recall is the share "
        "of items found, averaged over the budgets. Sizes and weights are those of the advertiser, "
        "category, item and text vectors.",
        detail=True,
    )


def _plot(budget: int, forecast: Filled, bootstrap: UserBootstrap) -> LinesPlot:
    test = forecast.test
    quotas = test.settings.quotas
    return {
        "kind": "lines",
        "name": f"retrieval_{budget}",
        "title": f"Items and advertisers found in lists of {budget} items",
        "x": list(quotas),
        "x_label": "quota of the forecast",
        "x_format": "percent",
        "value_label": "share found",
        "format": "percent",
        "digits": 1,
        "series": [
            {
                "label": measure,
                "estimates": [
                    estimate(case_mean(bootstrap, test.at(budget, quota, measure)))
                    for quota in quotas
                ],
            }
            for measure in ("items", "advertisers")
        ],
        "mark": forecast.quota(budget),
        "mark_label": "chosen on validation users",
    }
