"""The stacking experiment: LightGBM with the model's forecast, with others, and with none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from adprior_bench.quality.baselines.boosted import Signals
from adprior_bench.quality.baselines.choices import TunedBaseline
from adprior_bench.quality.baselines.registry import LIGHTGBM, SASREC, segment_key
from adprior_bench.quality.forecasts import LLM, Forecasts, Pair
from adprior_bench.quality.ranking.falsifiers import falsifiers
from adprior_bench.quality.ranking.impressions import SEED
from adprior_bench.quality.stacking.stack import fit_stacks
from adprior_bench.quality.stacking.stacking_tables import StackingFigures, stacking_section
from adprior_bench.quality.study import Study
from adprior_runtime.catalogue.advertisers import Advertisers

_RIVAL: Final = SASREC
"""The baseline whose forecast is no signal of LightGBM's either."""


def run_stacking(
    study: Study,
    forecasts: Forecasts,
    tuned: Sequence[TunedBaseline],
    advertisers: Advertisers,
    *,
    forecast_k: int,
    resamples: int,
    threads: int,
    interests: Pair | None = None,
) -> StackingFigures:
    """Stack the model's forecast, false forecasts and a rival's, and measure them.

    Args:
        study: Its validation users teach the second stage. Its test cases may be the validation
            cases: then all figures are cross-fitted.
        forecasts: The forecasts of all advertisers.
        tuned: The baselines.
        advertisers: The catalogue.
        forecast_k: The number of advertisers in a forecast.
        resamples: Number of bootstrap resamples.
        threads: CPU threads of LightGBM.
        interests: Log-probabilities of the advertisers' categories for the validation and the test
            cases, float32 [cases, advertisers]; None for a bundle without interests.
    """
    chosen = {each.name: each for each in tuned}
    first = chosen[LIGHTGBM]
    validation, test = forecasts.validation, forecasts.test
    stacks = fit_stacks(
        Signals(study.training, segment_key(chosen)),
        (study.validation, study.test),
        (first.validation, first.test),
        {
            LLM: (validation[LLM], test[LLM]),
            **falsifiers((validation[LLM], test[LLM]), (study.validation, study.test), SEED),
            _RIVAL: (validation[_RIVAL], test[_RIVAL]),
        },
        advertisers,
        forecast_k=forecast_k,
        threads=threads,
        interests=interests,
    )
    return stacking_section(
        stacks, (first.test, first.explore.test), study.test, resamples=resamples
    )
