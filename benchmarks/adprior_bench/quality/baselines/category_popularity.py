"""Popularity within the user's categories, which also ranks advertisers that nobody acted on."""

from __future__ import annotations

import numpy as np

from adprior_bench.quality.baselines.base import Training, fading, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class CategoryPopularity:
    """Each category's advertisers by popularity, weighted by the category's share in the past.

    An advertiser has one category, which the ad system knows (`Training.advertiser_categories`).
    Advertisers without events share a category's prior evenly.

    Args:
        training: The events, and the advertisers' categories.
        half_life_days: Half-life of the events in the user's own past.
        prior: Events added to each advertiser.
    """

    def __init__(self, training: Training, *, half_life_days: float, prior: float) -> None:
        self._categories = training.places_of_categories()
        known = self._categories >= 0
        counts = (training.event_counts() + prior) * known
        totals = np.bincount(self._categories[known], counts[known], training.categories)
        self._shares = counts / np.maximum(totals[np.maximum(self._categories, 0)], 1e-12)
        self._half_life_days = half_life_days
        self._count = training.categories

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a known category."""
        categories = case.user.categories[: case.stop]
        ages = case.day - case.user.days[: case.stop]
        known = categories >= 0
        weights = fading(ages[known], self._half_life_days)
        liked = normalised(np.bincount(categories[known], weights, self._count).astype(np.float64))
        found: Float64Array = liked[np.maximum(self._categories, 0)] * self._shares
        return found
