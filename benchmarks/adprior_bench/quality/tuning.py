"""Baselines tuned on the validation users: every setting tried, with its figure and its time.

The figure is recall@10 over the validation users' cases, the one that the language model is judged
by too. Test users play no part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_bench.progress import progress_bar, track
from adprior_bench.quality.baselines.base import Baseline, Training, blend
from adprior_bench.quality.baselines.boosted import Boosted
from adprior_bench.quality.baselines.neighbours import ItemNeighbours, UserNeighbours
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity, SegmentPopularity
from adprior_bench.quality.baselines.sequential import Sequential, SequentialSettings
from adprior_bench.quality.histories import EncodedCase, Float64Array

__all__ = [
    "Float32Array",
    "K",
    "Trial",
    "Tuned",
    "case_recalls",
    "forecast_all",
    "mean_recall",
    "tune",
]

Float32Array = npt.NDArray[np.float32]
K = 10
"""The recall that settings are chosen by."""

_FILL = 1e-6
"""Share of popularity that breaks the ties of forecasts which know few advertisers."""


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
    """

    name: str
    baseline: Baseline
    trials: Sequence[Trial]
    validation: Float32Array

    @property
    def best(self) -> Trial:
        """The setting chosen: the first of the highest recall."""
        return max(self.trials, key=lambda trial: trial.recall)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blend:
    """Two baselines' forecasts mixed, with some popularity for what neither knows."""

    first: Baseline
    second: Baseline
    share: float
    everyone: Float64Array

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        mixed = blend(self.first.probabilities(case), self.second.probabilities(case), self.share)
        return blend(mixed, self.everyone, _FILL)


@dataclass(slots=True, kw_only=True, eq=False)
class _Search:
    """Tries the settings of one baseline after another."""

    cases: Sequence[EncodedCase]
    advertisers: int
    bar: Any
    tuned: list[Tuned] = field(default_factory=list)

    def choose(
        self,
        name: str,
        grid: Sequence[Mapping[str, Any]],
        make: Callable[..., Baseline],
    ) -> Baseline:
        """Fit each setting, keep the best, and return it."""
        trials: list[Trial] = []
        best: tuple[float, Baseline, Float32Array] | None = None
        for settings in grid:
            self.bar.set_postfix_str(name, refresh=False)
            start = time.perf_counter()
            baseline = make(**settings)
            forecasts = forecast_all(
                baseline, self.cases, self.advertisers, title=f"{name}, validation users"
            )
            recall = mean_recall(forecasts, self.cases)
            seconds = time.perf_counter() - start
            trials.append(Trial(settings=dict(settings), recall=recall, seconds=seconds))
            if best is None or recall > best[0]:
                best = (recall, baseline, forecasts)
            self.bar.update()
        if best is None:
            raise ValueError(f"{name}: no setting to try")
        self.tuned.append(Tuned(name=name, baseline=best[1], trials=trials, validation=best[2]))
        return best[1]


def tune(
    training: Training, cases: Sequence[EncodedCase], *, threads: int, quick: bool = False
) -> list[Tuned]:
    """Fit every baseline with each of its settings; return them with the best.

    Args:
        training: What they learn from.
        cases: The validation users'.
        threads: CPU threads for LightGBM, 0 for all.
        quick: Try the first setting of each only, with small models.
    """
    grids = {name: grid[: 1 if quick else None] for name, grid in _grids(training, quick).items()}
    total = sum(len(grid) for grid in grids.values()) + len(grids["blend"])  # it serves twice
    with progress_bar(total=total, unit="setting", desc="tuning baselines") as bar:
        search = _Search(cases=cases, advertisers=training.advertisers, bar=bar)
        search.choose("popularity", grids["popularity"], lambda **kw: Popularity(training, **kw))
        everyone = _shares(search, training)
        if grids["segment_popularity"]:
            search.choose(
                "segment_popularity",
                grids["segment_popularity"],
                lambda **kw: SegmentPopularity(training, **kw),
            )
        own = search.choose(
            "own_history", grids["own_history"], lambda **kw: OwnHistory(training, everyone, **kw)
        )
        search.choose(
            "own_recency",
            grids["own_recency"],
            lambda **kw: OwnHistory(training, everyone, last_only=True, **kw),
        )
        for name, kind in (("user_knn", UserNeighbours), ("item_knn", ItemNeighbours)):
            alike = search.choose(
                name, grids[name], lambda kind=kind, **kw: _filled(kind(training, **kw), everyone)
            )
            search.choose(
                f"own_history_and_{name}",
                grids["blend"],
                lambda alike=alike, **kw: _Blend(first=own, second=alike, everyone=everyone, **kw),
            )
        segment = next((t for t in search.tuned if t.name == "segment_popularity"), None)
        key = segment.best.settings["key"] if segment else None
        search.choose(
            "lightgbm",
            grids["lightgbm"],
            lambda **kw: _filled(
                Boosted(
                    training,
                    segment=key,
                    settings=kw | {"num_threads": threads},
                ),
                everyone,
            ),
        )
        search.choose(
            "sasrec",
            grids["sasrec"],
            lambda **kw: Sequential(training, SequentialSettings(**kw)),
        )
    return search.tuned


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


def _shares(search: _Search, training: Training) -> Float64Array:
    settings = search.tuned[-1].best.settings
    return Popularity(training, **settings).shares


def _filled(baseline: Baseline, everyone: Float64Array) -> Baseline:
    return _Blend(first=baseline, second=baseline, share=0.0, everyone=everyone)


def _grids(training: Training, quick: bool) -> dict[str, list[dict[str, Any]]]:
    half_lives = (None, 90, 180, 365, 730)
    keys = sorted({key for user in training.users for key in user.profile})
    trees = [(15, 150), (15, 400), (31, 150), (31, 400)]
    networks = [(64, 0.3, 20), (64, 0.5, 20), (64, 0.5, 40)]
    return {
        "popularity": [{"half_life_days": days} for days in half_lives],
        "segment_popularity": [
            {"key": key, "strength": strength, "half_life_days": 365}
            for key in keys
            for strength in (300.0, 3000.0)
        ],
        "own_history": [
            {"half_life_days": days, "share": share} for days in half_lives for share in (0.1, 0.3)
        ],
        "own_recency": [{"half_life_days": 365, "share": share} for share in (0.1, 0.3)],
        "user_knn": [
            {"neighbours": count, "power": power} for count in (50, 200, 800) for power in (1, 3)
        ],
        "item_knn": [
            {"half_life_days": days, "shrinkage": shrinkage}
            for days in (90, 365)
            for shrinkage in (3, 30)
        ],
        "blend": [{"share": share} for share in (0.1, 0.3, 0.5, 0.7)],
        "lightgbm": [
            {
                "num_leaves": 7 if quick else leaves,
                "num_iterations": 20 if quick else rounds,
                "learning_rate": 0.05,
                "min_data_in_leaf": 1 if quick else 100,
            }
            for leaves, rounds in trees
        ],
        "sasrec": [
            {
                "width": 8 if quick else width,
                "dropout": dropout,
                "epochs": 2 if quick else epochs,
            }
            for width, dropout, epochs in networks
        ],
    }
