"""Every ranker's forecasts: the language model's, the baselines', and mixtures of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from adprior_bench.data.kept_results import KeptResults
from adprior_bench.quality.baselines.tuning import Float32Array, Tuned, mean_recall
from adprior_bench.quality.model_forecasts import forecast_cases
from adprior_bench.quality.study import Study
from adprior_runtime.forecast.forecaster import Forecaster

LLM: Final = "llm"
OWN: Final = "own_history"
POPULARITY: Final = "popularity"
_SHARES: Final = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts:
    """Every ranker's forecasts, float32 [cases, advertisers] each.

    Attributes:
        names: The language model's, those of its blends, those of the baselines.
        validation: For the validation cases.
        judged: For the cases that are judged.
        blends: Of each blend, recall@10 on the validation cases by the model's share.
    """

    names: Sequence[str]
    validation: Mapping[str, Float32Array]
    judged: Mapping[str, Float32Array]
    blends: Mapping[str, Mapping[float, float]]

    @property
    def shares(self) -> dict[str, float]:
        """The share chosen for each blend: the smallest of the highest recall."""
        return {name: _best_share(recalls) for name, recalls in self.blends.items()}


def forecast_rankers(
    forecaster: Forecaster,
    study: Study,
    tuned: Sequence[Tuned],
    kept: KeptResults | None = None,
) -> Forecasts:
    """Ask every ranker, and mix the model with own history and with the best baseline.

    Args:
        forecaster: The language model.
        study: The cases; validation cases choose the model's share in each blend.
        tuned: The baselines.
        kept: See `forecast_cases`.
    """
    validation, judged = (
        {LLM: forecast_cases(forecaster, study, cases, title=f"forecasts, {title}", kept=kept)}
        for title, cases in (("validation users", study.validation), ("test users", study.test))
    )
    for each in tuned:
        validation[each.name] = each.validation
        judged[each.name] = each.judged
    best = max(tuned, key=lambda each: each.best.recall).name
    blends = {}
    for other in dict.fromkeys([OWN, best]):
        name = blend_name(other)
        blends[name] = recalls = {
            share: mean_recall(_mixed(validation[LLM], validation[other], share), study.validation)
            for share in _SHARES
        }
        share = _best_share(recalls)
        validation[name] = _mixed(validation[LLM], validation[other], share)
        judged[name] = _mixed(judged[LLM], judged[other], share)
    names = [LLM, *blends, *(each.name for each in tuned)]
    return Forecasts(names=names, validation=validation, judged=judged, blends=blends)


def _best_share(recalls: Mapping[float, float]) -> float:
    return max(recalls, key=lambda share: recalls[share])


def _mixed(ours: Float32Array, other: Float32Array, share: float) -> Float32Array:
    mixed: Float32Array = (np.float32(share) * ours + np.float32(1 - share) * other).astype(
        np.float32
    )
    return mixed


def blend_name(other: str) -> str:
    """Return the name of the model's blend with a baseline."""
    return f"{LLM}_and_{other}"
