"""Tuning of baselines: all settings are fitted, and the one with the highest recall@10 is chosen.

Settings are chosen on the validation users' cases; test users have no influence. Slow forecasts are
kept, so that a killed run can continue.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import lightgbm
import numpy as np
import torch

from adprior_bench.data.kept_results import KeptResults, key_of
from adprior_bench.quality.baselines.base import Baseline, Training
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array, mean_recall
from adprior_runtime.terminal.progress import progress_bar, track
from adprior_runtime.text.json_text import to_json

KEPT_FROM_S: Final = 2.0
"""Results that took less time are not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting: its recall@10 on the validation cases, and the time to fit and to forecast."""

    settings: Mapping[str, Any]
    recall: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedBaseline:
    """A baseline with its best setting.

    Attributes:
        name: Name of the baseline.
        baseline: Fitted when it is first used.
        trials: All settings, in order.
        validation: float32 [cases, advertisers], the forecasts for the validation cases.
        test: float32 [cases, advertisers], the forecasts for the test cases.
    """

    name: str
    baseline: Baseline
    trials: Sequence[Trial]
    validation: Float32Array
    test: Float32Array

    @property
    def best(self) -> Trial:
        """The chosen setting: the first one with the highest recall."""
        return max(self.trials, key=lambda trial: trial.recall)


Chosen = Mapping[str, TunedBaseline]
"""The baselines tuned so far, by name."""


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


@dataclass(slots=True, kw_only=True, eq=False)
class _Lazy:
    """A baseline that is fitted when it is first used."""

    make: Callable[[], Baseline]
    fitted: Baseline | None = None

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        if self.fitted is None:
            self.fitted = self.make()
        return self.fitted.probabilities(case)


def tune(
    families: Sequence[Family],
    training: Training,
    validation: Sequence[EncodedCase],
    test: Sequence[EncodedCase],
    kept: KeptResults | None = None,
) -> list[TunedBaseline]:
    """Fit every baseline with each of its settings; return them with the best.

    Each family comes after the families that it uses. ``kept`` has results of an earlier run; new
    ones are added.
    """
    total = sum(len(family.grid) for family in families)
    with progress_bar(total=total, unit="setting", desc="tuning baselines") as bar:
        tuning = _Tuning(
            training=training,
            validation=validation,
            test=test,
            bar=bar,
            kept=KeptResults(None) if kept is None else kept,
        )
        for family in families:
            tuning.add(family)
    return list(tuning.chosen.values())


@dataclass(slots=True, kw_only=True, eq=False)
class _Tuning:
    training: Training
    validation: Sequence[EncodedCase]
    test: Sequence[EncodedCase]
    bar: Any
    kept: KeptResults
    chosen: dict[str, TunedBaseline] = field(default_factory=dict)
    _inputs: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        """Hash everything that results depend on, apart from settings."""
        libraries = (lightgbm.__version__, torch.__version__)
        inputs = (libraries, self.training, self.validation, self.test)
        self._inputs = hashlib.sha256(pickle.dumps(inputs)).digest()

    def add(self, family: Family) -> None:
        """Try the settings of a family, and choose one."""
        self.bar.set_postfix_str(family.name, refresh=False)
        tried: list[tuple[Trial, _Lazy, Float32Array]] = []
        for settings in family.grid:
            lazy = _Lazy(make=partial(family.make, self.chosen, **settings))
            rows, seconds = self._forecast(family.name, settings, lazy, "validation users")
            recall = mean_recall(rows, self.validation)
            trial = Trial(settings=dict(settings), recall=recall, seconds=seconds)
            tried.append((trial, lazy, rows))
            self.bar.update()
        trial, lazy, rows = max(tried, key=lambda each: each[0].recall)
        trials = [trial for trial, _, _ in tried]
        # Quick test forecasts of a slow trial are kept too: else a continued run fits it again.
        test, _ = self._forecast(family.name, trial.settings, lazy, "test users", trial.seconds)
        self.chosen[family.name] = TunedBaseline(
            name=family.name, baseline=lazy, trials=trials, validation=rows, test=test
        )

    def _forecast(
        self,
        name: str,
        settings: Mapping[str, Any],
        baseline: Baseline,
        group: str,
        earlier_seconds: float = 0.0,
    ) -> tuple[Float32Array, float]:
        """Return forecasts and the time that they took, kept or computed."""
        before = [(each.name, dict(each.best.settings)) for each in self.chosen.values()]
        key = key_of(group, name, to_json([settings, before], sort_keys=True), self._inputs)
        if (found := self.kept.get(key)) is None:
            start = time.perf_counter()
            cases = self.test if group == "test users" else self.validation
            title = f"{name}, {group}"
            rows = forecast_all(baseline, cases, self.training.advertisers, title=title)
            seconds = time.perf_counter() - start
            found = {"rows": rows, "seconds": np.asarray(seconds)}
            if max(seconds, earlier_seconds) >= KEPT_FROM_S:
                self.kept.put(key, found)
        return found["rows"], found["seconds"].item()


def forecast_all(
    baseline: Baseline, cases: Sequence[EncodedCase], advertisers: int, *, title: str = "baseline"
) -> Float32Array:
    """Return a baseline's forecasts: float32 [cases, advertisers]."""
    found = np.empty((len(cases), advertisers), dtype=np.float32)
    for row, case in enumerate(track(cases, desc=title, unit="case", leave=False)):
        found[row] = baseline.probabilities(case)
    return found
