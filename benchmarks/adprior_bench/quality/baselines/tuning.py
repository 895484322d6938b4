"""Tuning of baselines: all settings are fitted, and the one with the highest recall@10 is chosen.

There are three choices: the best setting for all advertisers, for those new to the user, and for
newcomers, which no training user acted on (by recall@50; see `adprior_bench.quality.explore`). All
are made on the validation users' cases; test users have no influence. Slow forecasts are kept, so
that a killed run can continue.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any, Final

import lightgbm
import numpy as np
import torch

from adprior_bench.data.kept_results import KeptResults, key_of
from adprior_bench.quality.baselines.base import Baseline, Training
from adprior_bench.quality.baselines.choices import Choice, Family, Trial, TunedBaseline
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array, mean_recall
from adprior_runtime.terminal.progress import progress_bar, track
from adprior_runtime.text.json_text import to_json

NEWCOMER_DEPTH: Final = 50
KEPT_FROM_S: Final = 2.0
"""Results that took less time are not kept."""
_VALIDATION: Final = "validation users"
_TEST: Final = "test users"


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    """A setting with its forecasts for the validation cases."""

    trial: Trial
    baseline: _Lazy
    rows: Float32Array


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
    _inputs: dict[str, bytes] = field(init=False)
    _explore: tuple[Explore, Explore] = field(init=False)
    _newcomers: tuple[Explore, Explore] = field(init=False)

    def __post_init__(self) -> None:
        """Hash everything that results depend on, apart from settings."""
        is_newcomer = self.training.event_counts() == 0
        self._explore = Explore.of(self.validation), Explore.of(self.test)
        self._newcomers = (
            Explore.of(self.validation, is_newcomer),
            Explore.of(self.test, is_newcomer),
        )
        modules = files("adprior_bench.quality.baselines").iterdir()
        code = {each.name: each.read_bytes() for each in modules if each.name.endswith(".py")}
        sources = sorted(code.items())
        learnt = (lightgbm.__version__, torch.__version__, sources, self.training)
        self._inputs = {
            group: hashlib.sha256(pickle.dumps((learnt, cases))).digest()
            for group, cases in ((_VALIDATION, self.validation), (_TEST, self.test))
        }

    def add(self, family: Family) -> None:
        """Try the settings of a family, and choose one."""
        self.bar.set_postfix_str(family.name, refresh=False)
        fitted: list[_Fitted] = []
        for settings in family.grid:
            lazy = _Lazy(make=partial(family.make, self.chosen, **settings))
            rows, seconds = self._forecast(family.name, settings, lazy, _VALIDATION)
            trial = Trial(
                settings=dict(settings),
                recall=mean_recall(rows, self.validation),
                explore=self._explore[0].recall(rows),
                newcomers=self._newcomers[0].recall(rows, NEWCOMER_DEPTH),
                seconds=seconds,
            )
            fitted.append(_Fitted(trial=trial, baseline=lazy, rows=rows))
            self.bar.update()
        best = max(fitted, key=lambda each: each.trial.recall)
        explore = max(fitted, key=lambda each: each.trial.explore)
        newcomers = max(fitted, key=lambda each: each.trial.newcomers)
        test = {id(each): self._test(family.name, each) for each in (best, explore, newcomers)}
        self.chosen[family.name] = TunedBaseline(
            name=family.name,
            baseline=best.baseline,
            trials=[each.trial for each in fitted],
            validation=best.rows,
            test=test[id(best)],
            explore=_choice(explore, test[id(explore)], self._explore),
            newcomers=_choice(newcomers, test[id(newcomers)], self._newcomers),
        )

    def _test(self, name: str, fitted: _Fitted) -> Float32Array:
        if self.test is self.validation:
            return fitted.rows
        trial = fitted.trial
        # Quick test forecasts of a slow trial are kept too: else a continued run fits it again.
        test, _ = self._forecast(name, trial.settings, fitted.baseline, _TEST, trial.seconds)
        return test

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
        key = key_of(group, name, to_json([settings, before], sort_keys=True), self._inputs[group])
        if (found := self.kept.get(key)) is None:
            start = time.perf_counter()
            cases = self.test if group == _TEST else self.validation
            title = f"{name}, {group}"
            rows = forecast_all(baseline, cases, self.training.advertisers, title=title)
            seconds = time.perf_counter() - start
            found = {"rows": rows, "seconds": np.asarray(seconds)}
            if max(seconds, earlier_seconds) >= KEPT_FROM_S:
                self.kept.put(key, found)
        return found["rows"], found["seconds"].item()


def _choice(fitted: _Fitted, test: Float32Array, explored: tuple[Explore, Explore]) -> Choice:
    return Choice(
        trial=fitted.trial,
        validation=explored[0].forecasts(fitted.rows),
        test=explored[1].forecasts(test),
    )


def forecast_all(
    baseline: Baseline, cases: Sequence[EncodedCase], advertisers: int, *, title: str = "baseline"
) -> Float32Array:
    """Return a baseline's forecasts: float32 [cases, advertisers]."""
    found = np.empty((len(cases), advertisers), dtype=np.float32)
    for row, case in enumerate(track(cases, desc=title, unit="case", leave=False)):
        found[row] = baseline.probabilities(case)
    return found
