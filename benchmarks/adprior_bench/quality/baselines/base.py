"""The interface of baselines, and the data that they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from adprior_bench.quality.histories import NONE, EncodedCase, EncodedUser, Float64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """The data that baselines learn from.

    Attributes:
        users: Training users with their events before the cut.
        cut: Days since 1970.
        advertisers: Number of advertisers in the catalogue.
        categories: Number of categories.
        names: The advertisers' names, in the order of their rows; empty if unknown.
        advertiser_categories: Each advertiser's category as the ad system knows it, None without
            one; empty if unknown.
        category_names: The categories' names, in the order of their numbers.
    """

    users: Sequence[EncodedUser]
    cut: int
    advertisers: int
    categories: int
    names: Sequence[str] = ()
    advertiser_categories: Sequence[str | None] = ()
    category_names: Sequence[str] = ()

    def events(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return user positions, advertiser rows and days of all events with an advertiser."""
        owners, rows, days = [], [], []
        for position, user in enumerate(self.users):
            known = user.rows >= 0
            owners.append(np.full(int(known.sum()), position, dtype=np.int32))
            rows.append(user.rows[known])
            days.append(user.days[known])
        return np.concatenate(owners), np.concatenate(rows), np.concatenate(days)

    def event_counts(self) -> npt.NDArray[np.int64]:
        """Return the number of events of each advertiser: int64 [advertisers]."""
        return np.bincount(self.events()[1], minlength=self.advertisers)

    def places_of_categories(self) -> npt.NDArray[np.int64]:
        """Return the number of each advertiser's category: int64 [advertisers], `NONE` without."""
        places = {name: place for place, name in enumerate(self.category_names)}
        return np.array([places.get(name or "", NONE) for name in self.advertiser_categories])

    def counts(self) -> sp.csr_matrix:
        """Return the number of events: float64 [users, advertisers]."""
        owners, rows, _ = self.events()
        shape = (len(self.users), self.advertisers)
        return sp.csr_matrix((np.ones(len(rows)), (owners, rows)), shape=shape)


class Baseline(Protocol):
    """A fitted baseline."""

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """Return a probability for each advertiser: float64 [advertisers], sum at most 1."""
        ...


def normalised(scores: Float64Array) -> Float64Array:
    """Return non-negative scores divided by their sum."""
    total = scores.sum()
    return scores / total if total > 0 else scores


def fading(ages: npt.NDArray[Any], half_life_days: float | None) -> Float64Array:
    """Return the weights of events by age in days; all are 1 without a half-life."""
    if half_life_days is None:
        return np.ones(len(ages))
    weights: Float64Array = 0.5 ** (ages / half_life_days)
    return weights


def blend(first: Float64Array, second: Float64Array, share: float) -> Float64Array:
    """Return a mixture with ``share`` of the second; an all-zero distribution has no part in it."""
    if not first.any():
        return second
    if not second.any():
        return first
    mixed: Float64Array = (1 - share) * first + share * second
    return mixed
