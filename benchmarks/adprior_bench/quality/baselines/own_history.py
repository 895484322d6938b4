"""The user's own history: the strongest simple baseline."""

from __future__ import annotations

import numpy as np

from adprior_bench.quality.baselines.base import Training, blend, fading, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class OwnHistory:
    """Shares of the user's own events, mixed with popularity.

    Args:
        training: Gives the number of advertisers.
        popularity: float64 [advertisers].
        half_life_days: Half-life of events; None gives all the same weight.
        last_only: Count only the latest event of each advertiser.
        share: Share of popularity in the mixture.
    """

    def __init__(
        self,
        training: Training,
        popularity: Float64Array,
        *,
        half_life_days: float | None = None,
        last_only: bool = False,
        share: float = 0.1,
    ) -> None:
        self._advertisers = training.advertisers
        self._popularity = popularity
        self._half_life_days = half_life_days
        self._last_only = last_only
        self._share = share

    def own(self, case: EncodedCase) -> Float64Array:
        """Return the shares of the user's own events, all 0 without events."""
        rows, days = case.past
        weights = fading(case.day - days, self._half_life_days)
        if self._last_only:
            scores = np.zeros(self._advertisers)
            np.maximum.at(scores, rows, weights)
            return normalised(scores)
        counts = np.bincount(rows, weights, minlength=self._advertisers)
        return normalised(counts.astype(np.float64))

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        return blend(self.own(case), self._popularity, self._share)
