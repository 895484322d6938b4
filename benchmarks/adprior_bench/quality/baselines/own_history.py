"""What the user acted on before: the strongest simple baseline of all."""

from __future__ import annotations

import numpy as np

from adprior_bench.quality.baselines.base import Training, blend, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class OwnHistory:
    """Shares of the user's own events, and some popularity for the rest.

    Args:
        training: For the number of advertisers.
        everyone: float64 [advertisers], what fills in.
        half_life_days: How fast events fade; None: not at all (frequency).
        last_only: Count each advertiser's latest event alone (recency).
        share: Of the filling.
    """

    def __init__(
        self,
        training: Training,
        everyone: Float64Array,
        *,
        half_life_days: float | None = None,
        last_only: bool = False,
        share: float = 0.1,
    ) -> None:
        self._advertisers = training.advertisers
        self._everyone = everyone
        self._half_life_days = half_life_days
        self._last_only = last_only
        self._share = share

    def own(self, case: EncodedCase) -> Float64Array:
        """Return the shares of the user's own events: all 0 without any."""
        rows, days = case.past
        weights = np.ones(len(rows))
        if self._half_life_days is not None:
            weights = 0.5 ** ((case.day - days) / self._half_life_days)
        if self._last_only:
            scores = np.zeros(self._advertisers)
            np.maximum.at(scores, rows, weights)
            return normalised(scores)
        counts = np.bincount(rows, weights, minlength=self._advertisers)
        return normalised(counts.astype(np.float64))

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        return blend(self.own(case), self._everyone, self._share)
