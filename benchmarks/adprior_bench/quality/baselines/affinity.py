"""Category affinity: the advertisers of the categories that the user acts on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, Float64Array


class CategoryAffinity:
    """Each category's advertiser shares, weighted by the category's share in the user's past."""

    def __init__(self, training: Training) -> None:
        self._categories = max(training.categories, 1)  # a data set may have none
        pairs = [
            np.stack([user.categories[known], user.rows[known]])
            for user in training.users
            for known in [(user.rows >= 0) & (user.categories >= 0)]
        ]
        found = np.concatenate(pairs, axis=1)
        shape = (self._categories, training.advertisers)
        counts = sp.csr_matrix((np.ones(found.shape[1]), (found[0], found[1])), shape=shape)
        totals = counts.sum(axis=1).A1
        self._shares = sp.csr_matrix(sp.diags(1 / np.maximum(totals, 1)) @ counts)

    def probabilities(self, case: EncodedCase, recent_days: int | None = None) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a known category.

        Args:
            case: The user and day.
            recent_days: Use only this many days before the case.
        """
        categories = case.user.categories[: case.stop]
        if recent_days is not None:
            categories = categories[case.user.days[: case.stop] >= case.day - recent_days]
        counts = np.bincount(categories[categories >= 0], minlength=self._categories)
        present = np.flatnonzero(counts)
        weights = counts[present] / max(int(counts.sum()), 1)
        found: Float64Array = np.asarray(weights @ self._shares[present], dtype=np.float64)
        return found
