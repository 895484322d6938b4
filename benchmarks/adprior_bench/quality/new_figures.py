"""Recall of advertisers new to the user, as draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from adprior_bench.quality.cohorts import Cohort, Targets, cohorts
from adprior_bench.quality.forecast_tables import RankerDraws
from adprior_bench.quality.forecasts import Forecasts
from adprior_bench.quality.intervals import Draws, UserBootstrap
from adprior_bench.quality.metrics import EXPLORE_AT, Scored, case_values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewFigures:
    """Recall of new advertisers, or of newcomers only, on the test cases.

    Attributes:
        best: The best baseline, chosen on validation cases.
        blends: The model's blends.
        draws: Draws of recall, by ranker.
        targets: Number of advertisers to find.
    """

    best: str
    blends: Collection[str]
    draws: RankerDraws
    targets: int


def new_figures(
    forecasts: Forecasts,
    scored: Mapping[str, Scored],
    targets: Targets,
    bootstrap: UserBootstrap,
) -> NewFigures:
    """Return the recall of scored forecasts, on the cases of the targets."""
    everything = cohorts(targets)["all"]
    return NewFigures(
        best=forecasts.best,
        blends=list(forecasts.blends),
        draws={
            name: recall_draws(each, targets, everything, bootstrap)
            for name, each in scored.items()
        },
        targets=int(everything.counts.sum()),
    )


def recall_draws(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> dict[str, Draws]:
    """Return draws of recall at each of `EXPLORE_AT`, over a cohort's cases."""
    values = case_values(scored, targets, cohort)
    return {f"recall@{k}": bootstrap.mean(values[f"recall@{k}"], cohort.cases) for k in EXPLORE_AT}
