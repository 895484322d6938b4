"""The bundle's forecasts as probabilities of every advertiser, and of altered prompts.

A search gives the most probable advertisers exactly, and an upper bound on every other: the
probability of the prefixes that it stopped at. What is left of the probability goes to the others
in proportion to their bounds, so that the forecast goes through the same metrics as a baseline that
has a probability for everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from tqdm import tqdm

from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.study import Study
from adprior_bench.quality.tuning import Float32Array
from adprior_runtime.context import UserContext
from adprior_runtime.forecaster import Forecaster

__all__ = ["ABLATIONS", "Ablation", "forecast_cases"]

Ablation = Callable[[UserContext], UserContext]


def forecast_cases(
    forecaster: Forecaster,
    study: Study,
    cases: Sequence[EncodedCase],
    *,
    alter: Ablation | None = None,
    title: str = "forecasts",
) -> Float32Array:
    """Ask the model about each case.

    Args:
        forecaster: The bundle.
        study: Knows the cases' histories.
        cases: Validation or test users'.
        alter: Changes what the model is told; None tells all that a client would.
        title: Of the progress bar.

    Returns:
        float32 [cases, advertisers], rows of sum 1 at most.
    """
    found = np.empty((len(cases), len(forecaster.advertisers.ids)), dtype=np.float32)
    for row, case in enumerate(tqdm(cases, unit="case", desc=title, dynamic_ncols=True)):
        context = study.context(case)
        found[row] = _probabilities(forecaster, context if alter is None else alter(context))
    return found


def _probabilities(forecaster: Forecaster, context: UserContext) -> Float64Array:
    forecast, bounds = forecaster.bounds(context)
    rows = forecaster.advertisers.rows_of(forecast.advertiser_ids)
    shown = np.exp(forecast.log_probs.astype(np.float64))
    rest = np.exp(bounds)
    rest[rows] = 0
    left = max(0.0, min(float(forecast.missing_mass), 1 - shown.sum()))
    found: Float64Array = rest * min(1.0, left / max(rest.sum(), 1e-12))
    found[rows] = shown
    return found


def _without_advertisers(context: UserContext) -> UserContext:
    return replace(
        context, history=tuple(replace(event, advertiser=None) for event in context.history)
    )


def _without_text(context: UserContext) -> UserContext:
    return replace(
        context,
        history=tuple(replace(event, category=None, text=None) for event in context.history),
    )


ABLATIONS: Final[Mapping[str, tuple[str, Ablation]]] = {
    "no_profile": ("no profile", lambda context: replace(context, profile={})),
    "no_text": ("no categories, no text", _without_text),
    "no_advertisers": ("no past advertisers", _without_advertisers),
    "profile_only": ("profile only", lambda context: replace(context, history=())),
}
"""By name, what a prompt is told to leave out."""
