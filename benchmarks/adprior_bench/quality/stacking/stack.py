"""Stacks: LightGBM's ranking, corrected by a second stage with a forecast and without one.

All stacks try the same settings. Cross-fitting over the validation users gives each setting's
recall@10: every user is ranked by a stage that learnt from others. The best setting for all
advertisers and the best one for those new to the user then learn from all validation users, and
rank the test cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from adprior_bench.quality.baselines.boosted import Signals
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.forecasts import Pair
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


def stack_name(forecast: str, *, interests: bool = False) -> str:
    """Return the name of the stack with a forecast, and with that of interests."""
    return f"{CONTROL}_with_{forecast}{'_and_interests' if interests else ''}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackRanking:
    """A stack's ranking of some cases.

    Attributes:
        impressions: The candidates; positions are those of the cases.
        logits: float64 [rows], log-odds that the user acts on the candidate.
        cases: Number of cases.
        advertisers: Size of the catalogue.
    """

    impressions: Impressions
    logits: Float64Array
    cases: int
    advertisers: int

    def probabilities(self) -> Float32Array:
        """Return a forecast: float32 [cases, advertisers], rows with a sum of at most 1.

        The chances of a case add up to the expected number of the day's advertisers; a larger sum
        than 1 is scaled to 1.
        """
        found = np.zeros((self.cases, self.advertisers), dtype=np.float32)
        found[self.impressions.cases, self.impressions.rows] = sigmoid(self.logits)
        sums = found.sum(axis=1, dtype=np.float64, keepdims=True)
        scaled: Float32Array = (found / np.maximum(sums, 1)).astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A setting chosen on the validation cases.

    Attributes:
        recalls: Recall@10 by setting, in the order of `SETTINGS`.
        validation: The cross-fitted ranking of the validation cases.
        test: The ranking of the test cases.
    """

    recalls: Sequence[float]
    validation: StackRanking
    test: StackRanking

    @property
    def setting(self) -> Setting:
        """The chosen setting: the first one with the highest recall."""
        return SETTINGS[int(np.argmax(self.recalls))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """A stack with the best setting for all advertisers, and for those new to the user."""

    everything: Choice
    new: Choice


def fit_stacks(
    signals: Signals,
    cases: tuple[Sequence[EncodedCase], Sequence[EncodedCase]],
    ranker: Pair,
    forecasts: Mapping[str, Pair],
    advertisers: Advertisers,
    *,
    forecast_k: int,
    threads: int,
    interests: Pair | None = None,
) -> dict[str, Stack]:
    """Fit the control, and a stack with each forecast, on the validation cases.

    Args:
        signals: The first ranker's, from training users.
        cases: The validation cases and the test cases. If both are the same list, the cross-fitted
            ranking is that of the test cases too.
        ranker: The first ranker's probabilities.
        forecasts: The forecasts to stack, by name.
        advertisers: The catalogue.
        forecast_k: The number of advertisers in a forecast.
        threads: CPU threads of LightGBM.
        interests: The log-probabilities of the advertisers' categories, as a column of one more
            stack, with the first forecast; None without.

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
    stacks: dict[str, tuple[str | None, Pair | None]] = {CONTROL: (None, None)}
    stacks |= {stack_name(forecast): (forecast, None) for forecast in forecasts}
    if interests is not None:
        first = next(iter(forecasts))
        stacks[stack_name(first, interests=True)] = first, interests
    with progress_bar(total=len(stacks), unit="stack", desc="stacks") as bar:
        for name, (forecast, further) in stacks.items():
            rows = [
                each.rows(
                    forecast,
                    None if forecast is None else forecasts[forecast][place],
                    advertisers,
                    forecast_k,
                    None if further is None else further[place],
                )
                for place, each in enumerate(candidates)
            ]
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
    """Choose settings on the first group's rows, and rank the last group's."""
    rankings = [
        partial(StackRanking, impressions=impressions, cases=len(group), advertisers=advertisers)
        for (impressions, _), group in zip(rows, groups, strict=True)
    ]
    learnt = rows[0][1]
    tried = [
        rankings[0](logits=cross_fit(setting, learnt, threads=threads)) for setting in SETTINGS
    ]
    explored = Explore.of(groups[0])
    recalls, new_recalls = [], []
    for each in tried:
        forecasts = each.probabilities()
        recalls.append(mean_recall(forecasts, groups[0]))
        new_recalls.append(explored.recall(forecasts))

    def choose(found: Sequence[float]) -> Choice:
        best = int(np.argmax(found))
        test = tried[best]
        if len(rows) > 1:
            stage = SecondStage(SETTINGS[best], learnt, threads=threads)
            test = rankings[1](logits=stage.adjust(rows[1][1]))
        return Choice(recalls=found, validation=tried[best], test=test)

    return Stack(everything=choose(recalls), new=choose(new_recalls))
