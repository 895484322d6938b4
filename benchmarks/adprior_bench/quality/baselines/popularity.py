"""Popularity baselines: over all users, with recent events counting more, or by profile segment."""

from __future__ import annotations

import numpy as np

from adprior_bench.quality.baselines.base import Training, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class Popularity:
    """Shares of training events, each halved in weight every ``half_life_days`` before the cut.

    Args:
        training: What to count.
        half_life_days: None counts every event alike.
        prior: Events that every advertiser is given beforehand.
    """

    def __init__(
        self, training: Training, *, half_life_days: float | None = None, prior: float = 0.5
    ) -> None:
        _, rows, days = training.events()
        weights = np.ones(len(rows))
        if half_life_days is not None:
            weights = 0.5 ** ((training.cut - days) / half_life_days)
        counts = np.bincount(rows, weights, minlength=training.advertisers)
        self.shares = normalised(counts + prior * weights.mean())

    def probabilities(self, case: EncodedCase) -> Float64Array:  # noqa: ARG002  the same for all
        """See `Baseline.probabilities`."""
        return self.shares


class SegmentPopularity:
    """Shares among the users with the same value of a profile key, drawn towards everyone's.

    Args:
        training: What to count.
        key: The profile key.
        strength: Everyone's shares count as much as so many events of the segment.
        half_life_days: As for `Popularity`.
    """

    def __init__(
        self, training: Training, *, key: str, strength: float, half_life_days: float | None = None
    ) -> None:
        self._key = key
        self._everyone = Popularity(training, half_life_days=half_life_days).shares
        owners, rows, days = training.events()
        weights = np.ones(len(rows))
        if half_life_days is not None:
            weights = 0.5 ** ((training.cut - days) / half_life_days)
        values = np.array([user.profile.get(key, "") for user in training.users])[owners]
        self._segments = {}
        for value in np.unique(values).tolist():
            here = values == value
            counts = np.bincount(rows[here], weights[here], minlength=training.advertisers)
            self._segments[value] = normalised(counts + strength * self._everyone)

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        return self._segments.get(case.user.profile.get(self._key, ""), self._everyone)
