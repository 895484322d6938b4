"""Explore: forecasts of advertisers that are new to the user.

Most of a day's advertisers are often repeats, which a ranker can copy from the history. So both
kinds are measured apart, as in Li et al., "A Next Basket Recommendation Reality Check" (TOIS 2023):
repeats in each ranker's whole list, and new advertisers in lists without the user's own history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from adprior_bench.quality.cohorts import BoolArray, Int64Array
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import TUNING_DEPTH, Float32Array, mean_recall


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explore:
    """The cases that have an advertiser new to the user.

    Attributes:
        places: int64 [explore cases], their positions among all cases.
        cases: The same cases, whose only targets are the new advertisers.
        among: bool [advertisers], the only ones that count; None for all.
    """

    places: Int64Array
    cases: Sequence[EncodedCase]
    among: BoolArray | None = None

    @classmethod
    def of(cls, cases: Sequence[EncodedCase], among: BoolArray | None = None) -> Explore:
        """Choose the cases, and drop the repeats among their targets.

        Args:
            cases: All cases.
            among: bool [advertisers], the only ones that count; None for all, in the catalogue or
                not.
        """
        new = []
        for case in cases:
            targets = np.setdiff1d(case.targets, case.user.rows[: case.stop])
            if among is None:
                new.append(replace(case, targets=targets, missed_repeated=0))
            else:
                kept = targets[among[targets]]
                new.append(replace(case, targets=kept, missed_repeated=0, missed_new=0))
        chosen = [place for place, case in enumerate(new) if len(case.targets) + case.missed]
        places = np.array(chosen, dtype=np.int64)
        return cls(places=places, cases=[new[place] for place in chosen], among=among)

    def forecasts(self, forecasts: Float32Array) -> Float32Array:
        """Return the chosen forecasts without the users' own advertisers, scaled to a sum of 1.

        Args:
            forecasts: float32 [cases, advertisers], of all cases.

        Returns:
            float32 [explore cases, advertisers].
        """
        return without_history(forecasts[self.places], self.cases)

    def recall(self, forecasts: Float32Array, k: int = TUNING_DEPTH) -> float:
        """Return the mean recall@k, 0 without cases.

        ``forecasts`` are of all cases. Lists are of the advertisers that count only.
        """
        found = self.only(self.forecasts(forecasts))
        return mean_recall(found, self.cases, k) if self.cases else 0.0

    def only(self, forecasts: Float32Array) -> Float32Array:
        """Return forecasts of the chosen cases with all advertisers at 0 that do not count."""
        if self.among is None:
            return forecasts
        found: Float32Array = (forecasts * self.among).astype(np.float32)
        return found


def without_history(forecasts: Float32Array, cases: Sequence[EncodedCase]) -> Float32Array:
    """Return forecasts without the users' own advertisers, scaled to a sum of 1: same shape."""
    found = forecasts.copy()
    for row, case in zip(found, cases, strict=True):
        row[case.past[0]] = 0
    sums = found.sum(axis=1, dtype=np.float64, keepdims=True)
    scaled: Float32Array = (found / np.maximum(sums, 1e-30)).astype(np.float32)
    return scaled


def spliced(repeats: Float32Array, new: Float32Array, cases: Sequence[EncodedCase]) -> Float32Array:
    """Return one forecast of the users' own advertisers, and another one of all others.

    The first keeps its probabilities of the own ones; the second divides the rest of the mass.
    """
    own = repeats.copy()
    for row, case in zip(own, cases, strict=True):
        row[~np.isin(np.arange(len(row)), case.past[0])] = 0
    rest = np.maximum(0.0, 1 - own.sum(axis=1, dtype=np.float64, keepdims=True))
    joined: Float32Array = (own + rest * without_history(new, cases)).astype(np.float32)
    return joined


def new_shares(lists: Int64Array, cases: Sequence[EncodedCase]) -> Float64Array:
    """Return the share of each list that is new to the user: float64 [cases].

    ``lists`` are rows of the catalogue, int64 [cases, n].
    """
    return np.array(
        [1 - np.isin(rows, case.past[0]).mean() for rows, case in zip(lists, cases, strict=True)]
    )
