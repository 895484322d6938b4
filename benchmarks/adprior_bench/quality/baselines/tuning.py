"""Settings of a baseline tried one after another, and what is kept of that for a killed run.

Only what took a while is kept: a trial's recall and forecasts, and the forecasts of the best
setting for the cases that are judged. All else is quickly computed anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt
import torch

from adprior_bench.data.kept_results import KeptResults, key_of
from adprior_bench.quality.baselines.base import Baseline, Training
from adprior_bench.quality.histories import EncodedCase, EncodedUser, Float64Array
from adprior_runtime.terminal.progress import track
from adprior_runtime.text.json_text import to_json

Float32Array = npt.NDArray[np.float32]
K = 10
"""The recall that settings are chosen by."""

LEAST_KEPT_S: Final = 2.0
"""What takes less is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting tried.

    Attributes:
        settings: What was tried.
        recall: recall@10 on the validation users' cases.
        seconds: To fit and to ask.
    """

    settings: Mapping[str, Any]
    recall: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuned:
    """A baseline with its best setting.

    Attributes:
        name: Of the baseline.
        baseline: Fitted.
        trials: All settings tried, in order.
        validation: float32 [cases, advertisers], its forecasts for the validation users' cases.
        judged: The same for the cases that are judged.
    """

    name: str
    baseline: Baseline
    trials: Sequence[Trial]
    validation: Float32Array
    judged: Float32Array

    @property
    def best(self) -> Trial:
        """The setting chosen: the first of the highest recall."""
        return max(self.trials, key=lambda trial: trial.recall)


@dataclass(slots=True, kw_only=True, eq=False)
class _Fitted:
    """A baseline that is fitted when it is first asked, unless it is at hand."""

    make: Callable[[], Baseline]
    baseline: Baseline | None = None

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        if self.baseline is None:
            self.baseline = self.make()
        return self.baseline.probabilities(case)


@dataclass(slots=True, kw_only=True, eq=False)
class SettingsSearch:
    """Tries the settings of one baseline after another.

    Attributes:
        training: What baselines learn from.
        cases: The validation users', which choose.
        judged: Those that the chosen setting is asked about too.
        bar: Moved by a setting.
        kept: Of an earlier run; new results are added.
        tuned: What was chosen so far.
    """

    training: Training
    cases: Sequence[EncodedCase]
    judged: Sequence[EncodedCase]
    bar: Any
    kept: KeptResults
    tuned: list[Tuned] = field(default_factory=list)
    _origin: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Digest what all results follow from."""
        self._origin = _digest(self.training, self.cases, self.judged)

    def choose(
        self,
        name: str,
        grid: Sequence[Mapping[str, Any]],
        make: Callable[..., Baseline],
    ) -> Baseline:
        """Fit each setting, keep the best, and return it."""
        trials: list[Trial] = []
        best: tuple[Trial, _Fitted, Float32Array] | None = None
        for settings in grid:
            self.bar.set_postfix_str(name, refresh=False)
            fitted = _Fitted(make=partial(make, **settings))
            trial, forecasts = self._try(name, settings, fitted)
            trials.append(trial)
            if best is None or trial.recall > best[0].recall:
                best = (trial, fitted, forecasts)
            self.bar.update()
        if best is None:
            raise ValueError(f"{name}: no setting to try")
        self.tuned.append(
            Tuned(
                name=name,
                baseline=best[1],
                trials=trials,
                validation=best[2],
                judged=self._judge(name, best[0], best[1]),
            )
        )
        return best[1]

    def _try(
        self, name: str, settings: Mapping[str, Any], fitted: _Fitted
    ) -> tuple[Trial, Float32Array]:
        key = self._key("trial", name, settings)
        if (found := self.kept.get(key)) is not None:
            seconds, recall = found["seconds"].item(), found["recall"].item()
            return Trial(settings=dict(settings), recall=recall, seconds=seconds), found["rows"]
        start = time.perf_counter()
        fitted.baseline = fitted.make()
        rows = self._ask(fitted, self.cases, f"{name}, validation users")
        recall = mean_recall(rows, self.cases)
        seconds = time.perf_counter() - start
        if seconds >= LEAST_KEPT_S:
            figures = {"seconds": np.asarray(seconds), "recall": np.asarray(recall)}
            self.kept.put(key, {**figures, "rows": rows})
        return Trial(settings=dict(settings), recall=recall, seconds=seconds), rows

    def _judge(self, name: str, trial: Trial, fitted: _Fitted) -> Float32Array:
        key = self._key("judged", name, trial.settings)
        if (found := self.kept.get(key)) is not None:
            return found["rows"]
        start = time.perf_counter()
        rows = self._ask(fitted, self.judged, f"{name}, test users")
        # Else a run that goes on would fit again what the trial keeps it from fitting.
        if max(time.perf_counter() - start, trial.seconds) >= LEAST_KEPT_S:
            self.kept.put(key, {"rows": rows})
        return rows

    def _ask(self, baseline: Baseline, cases: Sequence[EncodedCase], title: str) -> Float32Array:
        return forecast_all(baseline, cases, self.training.advertisers, title=title)

    def _key(self, kind: str, name: str, settings: Mapping[str, Any]) -> str:
        # A baseline may be made of those that were chosen before it, which --quick changes.
        before = [(each.name, dict(each.best.settings)) for each in self.tuned]
        asked = to_json([settings, before], sort_keys=True)
        return key_of(kind, name, asked, self._origin)


def forecast_all(
    baseline: Baseline, cases: Sequence[EncodedCase], advertisers: int, *, title: str = "baseline"
) -> Float32Array:
    """Return a baseline's forecasts: float32 [cases, advertisers], rows of sum 1 at most."""
    found = np.empty((len(cases), advertisers), dtype=np.float32)
    for row, case in enumerate(track(cases, desc=title, unit="case", leave=False)):
        found[row] = baseline.probabilities(case)
    return found


def case_recalls(forecasts: Float32Array, cases: Sequence[EncodedCase], k: int = K) -> Float64Array:
    """Return each case's recall@k: its advertisers found among the k most probable.

    Advertisers of the day that the catalogue does not have count as missed.
    """
    k = min(k, forecasts.shape[1])
    top = np.argpartition(-forecasts, k - 1, axis=1)[:, :k]
    return np.array(
        [
            len(np.intersect1d(row, case.targets)) / (len(case.targets) + case.missed)
            for row, case in zip(top, cases, strict=True)
        ]
    )


def mean_recall(forecasts: Float32Array, cases: Sequence[EncodedCase], k: int = K) -> float:
    """Return the mean of `case_recalls`."""
    return float(case_recalls(forecasts, cases, k).mean())


def _digest(training: Training, *groups: Sequence[EncodedCase]) -> str:
    """Return a hash of all that a baseline's forecasts follow from beside its settings."""
    total = hashlib.sha256(f"{lightgbm.__version__} {torch.__version__}".encode())
    total.update(f"{training.cut} {training.advertisers} {training.categories}".encode())

    def add(user: EncodedUser) -> None:
        about = [user.user_id, sorted(user.profile.items()), len(user.rows)]
        total.update(to_json(about).encode())
        for values in (user.days, user.rows, user.categories):
            total.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())

    for user in training.users:
        add(user)
    for cases in groups:
        total.update(f"cases {len(cases)}".encode())
        last = ""
        for case in cases:
            if case.user.user_id != last:
                add(case.user)
            last = case.user.user_id
            about = [case.stop, case.day, case.missed, case.targets.tolist()]
            total.update(to_json(about).encode())
    return total.hexdigest()
