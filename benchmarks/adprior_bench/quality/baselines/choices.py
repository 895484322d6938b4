"""The settings that tuning tries for a baseline, and the one that it chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adprior_bench.quality.baselines.base import Baseline
from adprior_bench.quality.metrics import Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of baseline.

    Attributes:
        name: Name in the report.
        grid: The settings to try.
        make: Fits a baseline: takes the baselines tuned before it, and a setting of the grid.
    """

    name: str
    grid: Sequence[Mapping[str, Any]]
    make: Callable[..., Baseline]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting, with its figures on the validation cases.

    Attributes:
        settings: The setting.
        recall: Recall@10 of all advertisers.
        explore: Recall@10 of advertisers new to the user, see `adprior_bench.quality.explore`.
        newcomers: Recall@50 of those that no training user acted on.
        seconds: The time to fit and to forecast.
    """

    settings: Mapping[str, Any]
    recall: float
    explore: float
    newcomers: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """The best setting for some of the advertisers new to the user, and its forecasts.

    Attributes:
        trial: The first one with the highest recall.
        validation: float32 [chosen cases, advertisers], as `Explore.forecasts` gives.
        test: The same for the test cases.
    """

    trial: Trial
    validation: Float32Array
    test: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedBaseline:
    """A baseline with its best settings.

    Attributes:
        name: Name of the baseline.
        baseline: The best one for all advertisers, fitted when it is first used.
        trials: All settings, in order.
        validation: float32 [cases, advertisers], the forecasts for the validation cases.
        test: float32 [cases, advertisers], the forecasts for the test cases.
        explore: The best setting for advertisers new to the user.
        newcomers: The best setting for advertisers that no training user acted on.
    """

    name: str
    baseline: Baseline
    trials: Sequence[Trial]
    validation: Float32Array
    test: Float32Array
    explore: Choice
    newcomers: Choice

    @property
    def best(self) -> Trial:
        """The chosen setting: the first one with the highest recall."""
        return max(self.trials, key=lambda trial: trial.recall)


Chosen = Mapping[str, TunedBaseline]
"""The baselines tuned so far, by name."""
