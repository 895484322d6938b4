"""Popularity among all users, and popularity by profile segment."""

from __future__ import annotations

import numpy as np

from adprior_bench.quality.baselines.base import Training, fading, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class Popularity:
    """Shares of training events.

    Args:
        training: The events.
        half_life_days: Half-life of events before the cut; None gives all the same weight.
        prior: Events added to each advertiser.
    """

    def __init__(
        self, training: Training, *, half_life_days: float | None = None, prior: float = 0.5
    ) -> None:
        _, rows, days = training.events()
        weights = fading(training.cut - days, half_life_days)
        counts = np.bincount(rows, weights, minlength=training.advertisers)
        self.shares = normalised(counts + prior * weights.mean())

    def probabilities(self, case: EncodedCase) -> Float64Array:  # noqa: ARG002  same for all cases
        """See `Baseline.probabilities`."""
        return self.shares


class SegmentPopularity:
    """Shares among users with the same value of a profile key, smoothed with overall popularity.

    Args:
        training: The events.
        key: The profile key.
        strength: Weight of overall popularity, in events.
        half_life_days: Half-life of events; None gives all the same weight.
    """

    def __init__(
        self, training: Training, *, key: str, strength: float, half_life_days: float | None = None
    ) -> None:
        self._key = key
        self._overall = Popularity(training, half_life_days=half_life_days).shares
        owners, rows, days = training.events()
        weights = fading(training.cut - days, half_life_days)
        values = np.array([user.profile.get(key, "") for user in training.users])[owners]
        self._segments = {}
        for value in np.unique(values).tolist():
            here = values == value
            counts = np.bincount(rows[here], weights[here], minlength=training.advertisers)
            self._segments[value] = normalised(counts + strength * self._overall)

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        return self._segments.get(case.user.profile.get(self._key, ""), self._overall)
