"""Stacks: LightGBM's ranking, corrected by a second stage with a forecast and without one.

All stacks try the same settings. The setting with the highest recall@10 on the validation cases is
chosen by cross-fitting over users: each user's ranking comes from a stage that learnt from others.
The chosen stage then learns from all validation users, and ranks the test cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from adprior_bench.quality.baselines.boosted import Signals
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array, mean_recall
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_bench.quality.stacking.candidates import StackCandidates
from adprior_bench.quality.stacking.second_stage import (
    SETTINGS,
    SecondStage,
    Setting,
    StackRows,
    cross_fit,
)
from adprior_build.head.logistic_fit import sigmoid
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.terminal.progress import progress_bar

CONTROL: Final = "stack"
"""The stack without a forecast."""

Pair: TypeAlias = tuple[Float32Array, Float32Array]
"""Probabilities [cases, advertisers] for the validation cases and for the test cases."""


def stack_name(forecast: str) -> str:
    """Return the name of the stack with a forecast."""
    return f"{CONTROL}_with_{forecast}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """A stack with its forecasts.

    Attributes:
        recalls: Recall@10 on the validation cases by setting, in the order of `SETTINGS`.
        validation: float32 [cases, advertisers], cross-fitted forecasts for the validation cases.
        test: float32 [cases, advertisers], the forecasts for the test cases.
    """

    recalls: Sequence[float]
    validation: Float32Array
    test: Float32Array

    @property
    def setting(self) -> Setting:
        """The chosen setting: the first one with the highest recall."""
        return SETTINGS[int(np.argmax(self.recalls))]


def fit_stacks(
    signals: Signals,
    cases: tuple[Sequence[EncodedCase], Sequence[EncodedCase]],
    ranker: Pair,
    forecasts: Mapping[str, Pair],
    advertisers: Advertisers,
    *,
    forecast_k: int,
    threads: int,
) -> dict[str, Stack]:
    """Fit the control, and a stack with each forecast, on the validation cases.

    Args:
        signals: The first ranker's, from training users.
        cases: The validation cases and the test cases. If both are the same list, cross-fitted
            forecasts stand for those of the test cases.
        ranker: The first ranker's probabilities.
        forecasts: The forecasts to stack, by name.
        advertisers: The catalogue.
        forecast_k: The number of advertisers in a forecast.
        threads: CPU threads of LightGBM.

    Raises:
        InvalidInputError: There are too few validation users to cross-fit.
    """
    groups = list(cases)[: 1 if cases[0] is cases[1] else 2]
    candidates = [
        StackCandidates.of(
            group, signals, ranker[place], {name: pair[place] for name, pair in forecasts.items()}
        )
        for place, group in enumerate(groups)
    ]
    found = {}
    with progress_bar(total=1 + len(forecasts), unit="stack", desc="stacks") as bar:
        for forecast in (None, *forecasts):
            rows = [
                each.rows(
                    forecast,
                    None if forecast is None else forecasts[forecast][place],
                    advertisers,
                    forecast_k,
                )
                for place, each in enumerate(candidates)
            ]
            name = CONTROL if forecast is None else stack_name(forecast)
            found[name] = _fit(rows, groups, advertisers=len(advertisers.ids), threads=threads)
            bar.update()
    return found


def _fit(
    rows: Sequence[tuple[Impressions, StackRows]],
    groups: Sequence[Sequence[EncodedCase]],
    *,
    advertisers: int,
    threads: int,
) -> Stack:
    shown, learnt = rows[0]
    validation, *test = groups
    tried = [
        _probabilities(
            cross_fit(setting, learnt, threads=threads), shown, (len(validation), advertisers)
        )
        for setting in SETTINGS
    ]
    recalls = [mean_recall(forecasts, validation) for forecasts in tried]
    best = int(np.argmax(recalls))
    judged = tried[best]
    if test:
        stage = SecondStage(SETTINGS[best], learnt, threads=threads)
        shown, given = rows[1]
        judged = _probabilities(stage.adjust(given), shown, (len(test[0]), advertisers))
    return Stack(recalls=recalls, validation=tried[best], test=judged)


def _probabilities(
    logits: Float64Array, impressions: Impressions, shape: tuple[int, int]
) -> Float32Array:
    """Return each candidate's chance, scaled to a sum of at most 1: float32 [cases, advertisers].

    Chances of a case add up to the expected number of the day's advertisers.
    """
    found = np.zeros(shape, dtype=np.float32)
    found[impressions.cases, impressions.rows] = sigmoid(logits)
    sums = found.sum(axis=1, dtype=np.float64, keepdims=True)
    scaled: Float32Array = (found / np.maximum(sums, 1)).astype(np.float32)
    return scaled
