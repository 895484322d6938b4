"""The bundle's forecasts as probabilities of every advertiser, and of altered prompts.

A search gives the most probable advertisers exactly, and an upper bound on every other: the
probability of the prefixes that it stopped at. What is left of the probability goes to the others
in proportion to their bounds, so that the forecast goes through the same metrics as a baseline that
has a probability for everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnxruntime

from adprior_bench.data.kept_results import KeptResults, key_of
from adprior_bench.quality.baselines.tuning import Float32Array
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.study import Study
from adprior_runtime import __version__
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.progress import track

Ablation = Callable[[UserContext], UserContext]


def forecast_cases(
    forecaster: Forecaster,
    study: Study,
    cases: Sequence[EncodedCase],
    *,
    alter: Ablation | None = None,
    title: str = "forecasts",
    kept: KeptResults | None = None,
) -> Float32Array:
    """Ask the model about each case.

    Args:
        forecaster: The bundle.
        study: Knows the cases' histories.
        cases: Validation or test users'.
        alter: Changes what the model is told; None tells all that a client would.
        title: Of the progress bar.
        kept: Forecasts of an earlier run of this bundle, by their prompts; new ones are added.

    Returns:
        float32 [cases, advertisers], rows of sum 1 at most.
    """
    found = np.empty((len(cases), len(forecaster.advertisers.ids)), dtype=np.float32)
    kept = KeptResults(None) if kept is None else kept
    for row, case in enumerate(track(cases, unit="forecast", desc=title)):
        context = study.context(case)
        found[row] = _kept_probabilities(
            forecaster, context if alter is None else alter(context), kept
        )
    return found


def forecast_identity(bundle_id: str, threads: int) -> dict[str, Any]:
    """Return what a forecast follows from beside its prompt, for `keep_results`.

    A bundle's id is a hash of its files and settings.
    """
    return {
        "bundle_id": bundle_id,
        "threads": threads,
        "adprior_version": __version__,
        "onnxruntime_version": onnxruntime.__version__,
    }


def _kept_probabilities(
    forecaster: Forecaster, context: UserContext, kept: KeptResults
) -> Float32Array:
    """Return what is kept of the same prompt, else ask: a forecast follows from its prompt."""
    prompt = np.asarray(forecaster.prompt_ids(context), dtype=np.int64)
    key = key_of("probabilities", prompt.tobytes())
    if (found := kept.get(key)) is None:
        found = {"row": _probabilities(forecaster, context).astype(np.float32)}
        kept.put(key, found)
    return found["row"]


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
