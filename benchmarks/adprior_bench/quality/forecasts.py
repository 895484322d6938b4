"""Forecasts of all rankers: the model's, the baselines', and blends of both.

There are three sets: of all advertisers, of those new to the user, and of newcomers, which no
training user acted on. In each, the best baseline and the model's share in each blend are chosen on
the validation cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from adprior_bench.quality.baselines.choices import Choice, TunedBaseline
from adprior_bench.quality.baselines.registry import LIGHTGBM, OWN, USER_KNN
from adprior_bench.quality.baselines.tuning import NEWCOMER_DEPTH
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.metrics import TUNING_DEPTH, Float32Array, mean_recall

LLM: Final = "llm"
_SHARES: Final = tuple(round(0.1 * step, 1) for step in range(1, 10))

Pair: TypeAlias = tuple[Float32Array, Float32Array]
"""One ranker's forecasts for the validation cases and for the test cases."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts:
    """The forecasts of all rankers, float32 [cases, advertisers] each.

    Attributes:
        names: The model, its blends, the baselines.
        best: The baseline with the highest recall on the validation cases.
        validation: Forecasts for the validation cases, by ranker.
        test: Forecasts for the test cases, by ranker.
        blends: Recall on the validation cases by the model's share, for each blend.
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


def all_forecasts(
    model: Pair, tuned: Sequence[TunedBaseline], validation_cases: Sequence[EncodedCase]
) -> Forecasts:
    """Collect forecasts of all advertisers; blend with own history and the best baseline."""
    best = max(tuned, key=lambda each: each.best.recall).name
    baselines = {each.name: (each.validation, each.test) for each in tuned}
    return _collect(model, baselines, best, [OWN, best], validation_cases)


def best_for_new(tuned: Sequence[TunedBaseline]) -> str:
    """Return the baseline that finds most advertisers new to the user, on validation cases."""
    return max(tuned, key=lambda each: each.explore.trial.explore).name


def explore_forecasts(
    model: Pair, tuned: Sequence[TunedBaseline], explored: tuple[Explore, Explore]
) -> Forecasts | None:
    """Collect forecasts of new advertisers; blend with user-kNN, LightGBM and the best baseline.

    Args:
        model: The model's forecasts of all advertisers.
        tuned: The baselines.
        explored: Their validation and test cases with new advertisers.

    Returns:
        Forecasts for these cases; None if a group has none.
    """
    choices = {each.name: each.explore for each in tuned}
    best = best_for_new(tuned)
    return _collect_new(model, choices, best, [USER_KNN, LIGHTGBM, best], explored)


def newcomer_forecasts(
    model: Pair, tuned: Sequence[TunedBaseline], explored: tuple[Explore, Explore]
) -> Forecasts | None:
    """Collect forecasts of newcomers; blend with the best baseline; see `explore_forecasts`."""
    choices = {each.name: each.newcomers for each in tuned}
    best = max(choices, key=lambda name: choices[name].trial.newcomers)
    return _collect_new(model, choices, best, [best], explored, NEWCOMER_DEPTH)


def _collect_new(
    model: Pair,
    choices: Mapping[str, Choice],
    best: str,
    others: Sequence[str],
    explored: tuple[Explore, Explore],
    depth: int = TUNING_DEPTH,
) -> Forecasts | None:
    if not all(each.cases for each in explored):
        return None
    validation, test = (
        each.forecasts(matrix) for each, matrix in zip(explored, model, strict=True)
    )
    baselines = {name: (choice.validation, choice.test) for name, choice in choices.items()}
    return _collect((validation, test), baselines, best, others, explored[0].cases, depth)


def blend_name(other: str) -> str:
    """Return the name of the model's blend with a baseline."""
    return f"{LLM}_and_{other}"


def _collect(
    model: Pair,
    baselines: Mapping[str, Pair],
    best: str,
    others: Sequence[str],
    cases: Sequence[EncodedCase],
    depth: int = TUNING_DEPTH,
) -> Forecasts:
    """Blend the model with others, by recall@depth on the validation cases."""
    blends: dict[str, dict[float, float]] = {}
    blended: dict[str, Pair] = {}
    for other in dict.fromkeys(others):
        found = {
            share: mean_recall(_mixed(model[0], baselines[other][0], share), cases, depth)
            for share in _SHARES
        }
        share = max(found, key=found.__getitem__)
        name = blend_name(other)
        blends[name] = found
        first, second = (
            _mixed(mine, theirs, share)
            for mine, theirs in zip(model, baselines[other], strict=True)
        )
        blended[name] = first, second
    rankers = {LLM: model, **blended, **baselines}
    return Forecasts(
        names=list(rankers),
        best=best,
        validation={name: pair[0] for name, pair in rankers.items()},
        test={name: pair[1] for name, pair in rankers.items()},
        blends=blends,
    )


def _mixed(model: Float32Array, other: Float32Array, share: float) -> Float32Array:
    mixed = np.float32(share) * model + np.float32(1 - share) * other
    return mixed.astype(np.float32)
