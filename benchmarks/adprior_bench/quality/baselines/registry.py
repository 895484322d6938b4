"""Baselines tuned on the validation users: every setting tried, with its figure and its time.

The figure is recall@10 over the validation users' cases, the one that the language model is judged
by too. Test users play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adprior_bench.data.kept_results import KeptResults
from adprior_bench.quality.baselines.base import Baseline, Training, blend
from adprior_bench.quality.baselines.boosted import Boosted
from adprior_bench.quality.baselines.neighbours import ItemNeighbours, UserNeighbours
from adprior_bench.quality.baselines.own_history import OwnHistory
from adprior_bench.quality.baselines.popularity import Popularity, SegmentPopularity
from adprior_bench.quality.baselines.sequential import Sequential, SequentialSettings
from adprior_bench.quality.baselines.tuning import SettingsSearch, Tuned
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_runtime.terminal.progress import progress_bar

_FILL = 1e-6
"""Share of popularity that breaks the ties of forecasts which know few advertisers."""


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


def tune(
    training: Training,
    cases: Sequence[EncodedCase],
    judged: Sequence[EncodedCase],
    *,
    threads: int,
    quick: bool = False,
    kept: KeptResults | None = None,
) -> list[Tuned]:
    """Fit every baseline with each of its settings; return them with the best.

    Args:
        training: What they learn from.
        cases: The validation users', which choose.
        judged: Those that the chosen settings are asked about too; they choose nothing.
        threads: CPU threads for LightGBM, 0 for all.
        quick: Try the first setting of each only, with small models.
        kept: What an earlier run has computed; new results are added.
    """
    grids = {name: grid[: 1 if quick else None] for name, grid in _grids(training, quick).items()}
    total = sum(len(grid) for grid in grids.values()) + len(grids["blend"])  # it serves twice
    with progress_bar(total=total, unit="setting", desc="tuning baselines") as bar:
        search = SettingsSearch(
            training=training,
            cases=cases,
            judged=judged,
            bar=bar,
            kept=KeptResults(None) if kept is None else kept,
        )
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


def _shares(search: SettingsSearch, training: Training) -> Float64Array:
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
