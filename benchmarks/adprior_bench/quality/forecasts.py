"""Forecasts of all rankers: the model's as probability matrices, the baselines' and blends of both.

A search gives the most probable advertisers exactly, and an upper bound for every other one: the
probability of the prefix at which it stopped. The remaining probability is distributed over the
others in proportion to their bounds, so that the model is measured like a baseline that has a
probability for each advertiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime

from adprior_bench.data.kept_results import KeptResults, key_of
from adprior_bench.quality.baselines.registry import OWN
from adprior_bench.quality.baselines.tuning import TunedBaseline
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array, mean_recall
from adprior_bench.quality.study import Study
from adprior_runtime import __version__
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.progress import track

LLM: Final = "llm"
_SHARES: Final = tuple(round(0.1 * step, 1) for step in range(1, 10))

Alteration = Callable[[UserContext], UserContext]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts:
    """The forecasts of all rankers, float32 [cases, advertisers] each.

    Attributes:
        names: The model, its blends, the baselines.
        best: The baseline with the highest recall@10 on the validation cases.
        validation: Forecasts for the validation cases, by ranker.
        test: Forecasts for the test cases, by ranker.
        blends: Recall@10 on the validation cases by the model's share, for each blend.
    """

    names: Sequence[str]
    best: str
    validation: Mapping[str, Float32Array]
    test: Mapping[str, Float32Array]
    blends: Mapping[str, Mapping[float, float]]

    @property
    def shares(self) -> dict[str, float]:
        """The model's share in each blend: the smallest one with the highest recall."""
        return {name: max(found, key=found.__getitem__) for name, found in self.blends.items()}


def forecast_rankers(
    forecaster: Forecaster,
    study: Study,
    tuned: Sequence[TunedBaseline],
    kept: KeptResults | None = None,
) -> Forecasts:
    """Collect all forecasts; blend the model with own history and with the best baseline.

    The model's share in each blend is chosen on the validation cases.
    """
    validation, test = (
        {LLM: forecast_cases(forecaster, study, cases, title=f"forecasts, {title}", kept=kept)}
        for title, cases in (("validation users", study.validation), ("test users", study.test))
    )
    validation |= {each.name: each.validation for each in tuned}
    test |= {each.name: each.test for each in tuned}
    best = max(tuned, key=lambda each: each.best.recall).name
    blends = {
        blend_name(other): {
            share: mean_recall(_mixed(validation[LLM], validation[other], share), study.validation)
            for share in _SHARES
        }
        for other in dict.fromkeys([OWN, best])
    }
    found = Forecasts(
        names=[LLM, *blends, *(each.name for each in tuned)],
        best=best,
        validation=validation,
        test=test,
        blends=blends,
    )
    for other in dict.fromkeys([OWN, best]):
        name = blend_name(other)
        for forecasts in (validation, test):
            forecasts[name] = _mixed(forecasts[LLM], forecasts[other], found.shares[name])
    return found


def blend_name(other: str) -> str:
    """Return the name of the model's blend with a baseline."""
    return f"{LLM}_and_{other}"


def forecast_cases(
    forecaster: Forecaster,
    study: Study,
    cases: Sequence[EncodedCase],
    *,
    alter: Alteration | None = None,
    title: str = "forecasts",
    kept: KeptResults | None = None,
) -> Float32Array:
    """Return the model's forecasts: float32 [cases, advertisers], rows with a sum of at most 1.

    ``alter`` changes the contexts, for ablations. ``kept`` has forecasts of an earlier run of this
    bundle by prompt; new ones are added.
    """
    kept = KeptResults(None) if kept is None else kept
    found = np.empty((len(cases), len(forecaster.advertisers.ids)), dtype=np.float32)
    for row, case in enumerate(track(cases, unit="forecast", desc=title)):
        context = study.context(case) if alter is None else alter(study.context(case))
        prompt = np.asarray(forecaster.prompt_ids(context), dtype=np.int64)
        key = key_of("probabilities", prompt.tobytes())
        if (result := kept.get(key)) is None:
            result = {"row": _probabilities(forecaster, context).astype(np.float32)}
            kept.put(key, result)
        found[row] = result["row"]
    return found


def forecast_identity(bundle_id: str, threads: int) -> dict[str, Any]:
    """Return everything that a forecast depends on, apart from its prompt, for `keep_results`."""
    return {
        "bundle_id": bundle_id,
        "threads": threads,
        "adprior_version": __version__,
        "onnxruntime_version": onnxruntime.__version__,
    }


def _probabilities(forecaster: Forecaster, context: UserContext) -> Float64Array:
    forecast, bounds = forecaster.bounds(context)
    rows = forecaster.advertisers.rows_of(forecast.advertiser_ids)
    exact = np.exp(forecast.log_probs.astype(np.float64))
    bounded = np.exp(bounds)
    bounded[rows] = 0
    remaining = max(0.0, min(float(forecast.missing_mass), 1 - exact.sum()))
    found: Float64Array = bounded * min(1.0, remaining / max(bounded.sum(), 1e-12))
    found[rows] = exact
    return found


def _mixed(model: Float32Array, other: Float32Array, share: float) -> Float32Array:
    mixed = np.float32(share) * model + np.float32(1 - share) * other
    return mixed.astype(np.float32)
