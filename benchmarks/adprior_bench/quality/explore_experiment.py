"""The experiment on new advertisers: blends and settings from validation cases, then the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adprior_bench.quality.baselines.choices import TunedBaseline
from adprior_bench.quality.cohorts import BoolArray
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.explore_tables import ExploreFigures, explore_section
from adprior_bench.quality.forecasts import Pair, explore_forecasts, newcomer_forecasts
from adprior_bench.quality.metrics import Scored
from adprior_bench.quality.model_forecasts import LanguageModel
from adprior_bench.quality.study import Study


def run_explore(
    model: LanguageModel,
    study: Study,
    mine: Pair,
    tuned: Sequence[TunedBaseline],
    whole_lists: Mapping[str, Scored],
    exact: BoolArray,
    *,
    resamples: int,
) -> ExploreFigures | None:
    """Measure new advertisers and newcomers; None if a group of users has no new advertiser.

    Args:
        model: The language model.
        study: The users.
        mine: The model's forecasts of all advertisers.
        tuned: The baselines.
        whole_lists: All rankers' scored forecasts of the test cases.
        exact: bool [test cases, 2], see `ModelForecasts`.
        resamples: Number of bootstrap resamples.
    """
    forecasts = explore_forecasts(mine, tuned, _explored(study))
    if forecasts is None:
        return None
    is_newcomer = study.training.event_counts() == 0
    explored = _explored(study, is_newcomer)
    newcomers, only = newcomer_forecasts(mine, tuned, explored), None
    if newcomers is not None:
        only = model.forecast(
            study, explored[1].cases, among=is_newcomer, title="forecasts among newcomers"
        ).probabilities
    return explore_section(
        forecasts, newcomers, only, whole_lists, study, exact, resamples=resamples
    )


def _explored(study: Study, among: BoolArray | None = None) -> tuple[Explore, Explore]:
    return Explore.of(study.validation, among), Explore.of(study.test, among)
