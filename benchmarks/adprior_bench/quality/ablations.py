"""Prompt ablations: forecasts of the same model from prompts with parts left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_bench.quality.histories import draw_cases
from adprior_bench.quality.intervals import Draws, UserBootstrap, estimate
from adprior_bench.quality.metrics import Float32Array, measure_forecasts, score
from adprior_bench.quality.model_forecasts import Alteration, LanguageModel
from adprior_bench.quality.study import Study
from adprior_bench.report.schema import Cell, Section
from adprior_bench.report.tables import decimal, make_table, percent, points
from adprior_runtime.prompt.context import UserContext


def _change_history(**values: Any) -> Alteration:
    def alter(context: UserContext) -> UserContext:
        return replace(context, history=tuple(replace(e, **values) for e in context.history))

    return alter


CASES: Final = 100
"""Number of test cases that ablations are measured on: each costs a forecast of every ablation."""
ABLATIONS: Final[Mapping[str, Alteration]] = {
    "no profile": lambda context: replace(context, profile={}),
    "no categories, no text": _change_history(category=None, text=None),
    "no past advertisers": _change_history(advertiser=None),
    "profile only": lambda context: replace(context, history=()),
}


def ablation_section(
    model: LanguageModel, study: Study, whole_prompts: Float32Array, *, resamples: int
) -> Section:
    """Measure each ablation on a sample of the test cases.

    Args:
        model: The model.
        study: The users.
        whole_prompts: float32 [test cases, advertisers], the forecasts from whole prompts.
        resamples: Number of bootstrap resamples.
    """
    cases = draw_cases(study.test, CASES)
    drawn = set(map(id, cases))
    places = [place for place, case in enumerate(study.test) if id(case) in drawn]
    targets = Targets.of(cases)
    all_cases = cohorts(targets)["all"]
    bootstrap = UserBootstrap(targets.users, resamples=resamples)
    rows: list[dict[str, Cell]] = []

    def measured(probabilities: Float32Array) -> dict[str, Draws]:
        return measure_forecasts(score(probabilities, targets), targets, all_cases, bootstrap)

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

    whole = measured(whole_prompts[places])
    add_row("whole prompt", whole)
    for name, alter in ABLATIONS.items():
        found = model.forecast(study, cases, alter=alter, title=f"forecasts, {name}")
        add_row(name, measured(found.probabilities))
    return {
        "title": "Prompt ablations",
        "notes": [
            "The same model, which was trained with whole prompts, forecasts from prompts with "
            "parts left out. Leaving out a part that its prompt template does not use changes "
            "nothing."
        ],
        "content": [
            make_table(
                f"Prompts with parts left out, {len(cases):,} of {len(study.test):,} cases",
                rows,
                {"recall@10": percent(2), "change": points(2), "log-loss": decimal(3)},
            )
        ],
    }
