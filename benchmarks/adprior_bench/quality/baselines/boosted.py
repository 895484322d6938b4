"""LightGBM's lambdarank on features of a user and an advertiser, which combines simple signals.

It learns from the training users' days in the last months before the cut. Its features are computed
from the time before those months, so that no feature has seen the day that it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt

from adprior_bench.data.progress import boosting_bar
from adprior_bench.quality.baselines.affinity import CategoryAffinity
from adprior_bench.quality.baselines.base import Training, fading, normalised
from adprior_bench.quality.baselines.neighbours import ItemNeighbours, UserNeighbours
from adprior_bench.quality.baselines.popularity import Popularity, SegmentPopularity
from adprior_bench.quality.explore import Explore
from adprior_bench.quality.histories import EncodedCase, Float64Array, before, encoded_cases
from adprior_runtime.terminal.progress import track

FEATURES: Final = (
    "own_count", "own_share", "own_recent_30", "own_recent_180", "days_since_last", "own_events",
    "popularity", "popularity_90", "segment", "user_neighbours", "item_neighbours",
    "category_affinity", "day_of_week",
)  # fmt: skip
_CANDIDATE_COLUMNS: Final = range(7, 12)
"""The highest advertisers of these features are candidates."""
POOL: Final = 60
"""Number of candidates from each of these features."""
_NEVER: Final = 10_000.0
_SEED: Final = 7


class Signals:
    """The features of all advertisers for a case."""

    def __init__(self, training: Training, segment: str | None) -> None:
        self._advertisers = training.advertisers
        self._popular = Popularity(training).shares
        self._recent = Popularity(training, half_life_days=90).shares
        self._segment = SegmentPopularity(training, key=segment, strength=300) if segment else None
        self._users = UserNeighbours(training, neighbours=200, half_life_days=365)
        self._items = ItemNeighbours(training, half_life_days=365, shrinkage=30)
        self._affinity = CategoryAffinity(training)

    def of(self, case: EncodedCase) -> Float64Array:
        """Return float64 [advertisers, features], columns as in `FEATURES`."""
        rows, days = case.past
        ages = (case.day - days).astype(np.float64)
        count = np.bincount(rows, minlength=self._advertisers).astype(np.float64)
        latest = np.full(self._advertisers, _NEVER)
        np.minimum.at(latest, rows, ages)
        segment = self._popular if self._segment is None else self._segment.probabilities(case)
        columns = (
            count,
            normalised(count),
            np.bincount(rows, fading(ages, 30), minlength=self._advertisers),
            np.bincount(rows, fading(ages, 180), minlength=self._advertisers),
            latest,
            np.full(self._advertisers, float(len(rows))),
            self._popular,
            self._recent,
            segment,
            self._users.probabilities(case),
            self._items.probabilities(case),
            self._affinity.probabilities(case),
            np.full(self._advertisers, float((case.day + 3) % 7)),  # 1970 began on a Thursday
        )
        return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """The candidates that lambdarank learns from; models of any settings may share them.

    Attributes:
        segment: Profile key of the popularity by segment.
        pool: Number of candidates from each signal.
        table: float64 [rows, features], columns as in `FEATURES`.
        labels: int32 [rows], 1 for the day's advertisers.
        groups: Number of rows of each case.
    """

    segment: str | None
    pool: int
    table: Float64Array
    labels: npt.NDArray[np.int32]
    groups: Sequence[int]

    @classmethod
    def draw(
        cls,
        training: Training,
        *,
        segment: str | None,
        recent_days: int = 180,
        pool: int = POOL,
        negatives: int = 60,
        new_only: bool = False,
    ) -> Examples:
        """Compute the features of training users' days before the cut.

        Args:
            training: The data.
            segment: Profile key of the popularity by segment.
            recent_days: Start of the days before the cut; half of a shorter log.
            pool: Number of candidates from each signal.
            negatives: Candidates without an action, for each case.
            new_only: Take only advertisers that are new to the user.
        """
        first = min((int(user.days[0]) for user in training.users if len(user.days)), default=0)
        start = training.cut - min(recent_days, (training.cut - first) // 2)
        earlier = replace(
            training, users=[before(user, start) for user in training.users], cut=start
        )
        signals = Signals(earlier, segment)
        random = np.random.default_rng(_SEED)
        cases: Sequence[EncodedCase] = list(encoded_cases(training.users, start))
        cases = Explore.of(cases).cases if new_only else cases
        cases = [case for case in cases if len(case.targets)]
        tables, labels, groups = [], [], []
        for case in track(cases, desc="lightgbm, features", unit="case", leave=False):
            features = signals.of(case)
            candidates = candidate_rows(features, pool)
            hit = np.intersect1d(candidates, case.targets)
            if len(hit) == 0:
                continue
            left_out = case.past[0] if new_only else np.zeros(0, dtype=np.int32)
            others = np.setdiff1d(candidates, np.concatenate([case.targets, left_out]))
            others = random.choice(others, min(negatives, len(others)), replace=False)
            tables.append(features[np.concatenate([hit, others])])
            labels.append(np.repeat([1, 0], [len(hit), len(others)]))
            groups.append(len(hit) + len(others))
        return cls(
            segment=segment,
            pool=pool,
            table=np.concatenate(tables),
            labels=np.concatenate(labels).astype(np.int32),
            groups=groups,
        )


class Boosted:
    """A lambdarank model over `FEATURES`, on the candidates that the signals give.

    Args:
        training: The data of its signals.
        examples: What it learns from.
        settings: LightGBM's.
    """

    def __init__(self, training: Training, examples: Examples, *, settings: dict[str, Any]) -> None:
        fixed = {"objective": "lambdarank", "verbosity": -1, "seed": _SEED, "deterministic": True}
        with boosting_bar("lightgbm, training", settings.get("num_iterations", 100)) as callback:
            self._model = lightgbm.train(
                fixed | settings,
                lightgbm.Dataset(
                    examples.table,
                    examples.labels,
                    group=examples.groups,
                    feature_name=list(FEATURES),
                ),
                callbacks=[callback],
            )
        self._pool = examples.pool
        self._signals = Signals(training, examples.segment)

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`: the softmax of the candidates' scores."""
        features = self._signals.of(case)
        candidates = candidate_rows(features, self._pool)
        scores = np.asarray(self._model.predict(features[candidates]), dtype=np.float64)
        found = np.zeros(len(features))
        found[candidates] = normalised(np.exp(scores - scores.max()))
        return found


def candidate_rows(features: Float64Array, pool: int = POOL) -> npt.NDArray[np.int64]:
    """Return the user's own advertisers and the highest ``pool`` of each candidate column.

    Args:
        features: float64 [advertisers, features], as `Signals.of` returns them.
        pool: Number of candidates from each column.

    Returns:
        int64 [candidates], rows of the catalogue in ascending order.
    """
    pool = min(pool, len(features) - 1)
    firsts = [np.argpartition(-features[:, column], pool)[:pool] for column in _CANDIDATE_COLUMNS]
    found: npt.NDArray[np.int64] = np.unique(
        np.concatenate([np.flatnonzero(features[:, 0]), *firsts])
    )
    return found
