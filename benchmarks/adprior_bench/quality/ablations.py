"""Prompt ablations: forecasts of the same model from prompts with parts left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from adprior_bench.data.kept_results import KeptResults
from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.forecasts import Alteration, forecast_cases
from adprior_bench.quality.intervals import Draws, UserBootstrap, estimate
from adprior_bench.quality.metrics import measure_forecasts, score
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Cell, Section
from adprior_bench.report.tables import decimal, make_table, percent, points
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext


def _change_history(**values: Any) -> Alteration:
    def alter(context: UserContext) -> UserContext:
        return replace(context, history=tuple(replace(e, **values) for e in context.history))

    return alter


ABLATIONS: Final[Mapping[str, Alteration]] = {
    "no profile": lambda context: replace(context, profile={}),
    "no categories, no text": _change_history(category=None, text=None),
    "no past advertisers": _change_history(advertiser=None),
    "profile only": lambda context: replace(context, history=()),
}


def ablation_section(
    forecaster: Forecaster,
    study: Study,
    bootstrap: UserBootstrap,
    whole: Mapping[str, Draws],
    kept: KeptResults,
) -> Section:
    """Measure each ablation on the test cases.

    ``whole`` has the draws of the metrics with the whole prompt.
    """
    targets = Targets.of(study.test)
    all_cases = cohorts(targets)["all"]
    rows: list[dict[str, Cell]] = []

    def add_row(prompt: str, draws: Mapping[str, Draws]) -> None:
        change = draws["recall@10"] - whole["recall@10"]
        rows.append(
            {
                "prompt": prompt,
                "recall@10": estimate(draws["recall@10"]),
                "change": None if draws is whole else estimate(change),
                "log-loss": estimate(draws["log_loss"]),
            }
        )

    add_row("whole prompt", whole)
    for name, alter in ABLATIONS.items():
        title = f"forecasts, {name}"
        altered = forecast_cases(forecaster, study, study.test, alter=alter, title=title, kept=kept)
        scored = score(altered, targets)
        add_row(name, measure_forecasts(scored, targets, all_cases, bootstrap))
    return {
        "title": "Prompt ablations",
        "notes": [
            "The same model, which was trained with whole prompts, forecasts from prompts with "
            "parts left out. Leaving out a part that its prompt template does not use changes "
            "nothing."
        ],
        "content": [
            make_table(
                "Prompts with parts left out, all cases",
                rows,
                {"recall@10": percent(2), "change": points(2), "log-loss": decimal(3)},
            )
        ],
    }
