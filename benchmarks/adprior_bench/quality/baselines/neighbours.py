"""Collaborative filtering: user-kNN and item-kNN."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from adprior_bench.quality.baselines.base import Training, fading, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


class UserNeighbours:
    """The advertisers of the most similar training users.

    Similarity is the cosine of log-counts, weighted by the rarity of the advertiser.

    Args:
        training: The users.
        neighbours: Number of neighbours.
        half_life_days: Half-life of the events in the user's own past.
        power: A neighbour's weight is the similarity to this power.
    """

    def __init__(
        self, training: Training, *, neighbours: int, half_life_days: float = 365, power: float = 1
    ) -> None:
        counts = training.counts()
        self._shares = sp.diags(1 / np.maximum(counts.sum(axis=1).A1, 1)) @ counts
        users_of = np.diff(counts.tocsc().indptr)
        self._rarity = np.log((1 + len(training.users)) / (1 + users_of))
        counts.data = np.log1p(counts.data)
        matrix = counts @ sp.diags(self._rarity)
        lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1
        self._unit = sp.diags(1 / np.maximum(lengths, 1e-12)) @ matrix
        self._neighbours, self._half_life_days = neighbours, half_life_days
        self._power = power
        self._places = {user.user_id: place for place, user in enumerate(training.users)}

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a past."""
        rows, days = case.past
        weights = fading(case.day - days, self._half_life_days)
        counts = np.bincount(rows, weights, minlength=len(self._rarity))
        profile = np.log1p(counts) * self._rarity
        length = float(np.linalg.norm(profile))
        if length == 0:
            return np.zeros(len(profile))
        similarity = self._unit @ (profile / length)
        if (own := self._places.get(case.user.user_id)) is not None:
            similarity[own] = 0  # a training user is not their own neighbour
        count = min(self._neighbours, len(similarity))
        nearest = np.argpartition(-similarity, count - 1)[:count]
        weights = np.maximum(similarity[nearest], 0) ** self._power
        return normalised(weights @ self._shares[nearest])


class ItemNeighbours:
    """The advertisers that the same users act on (cosine over users).

    Args:
        training: The users.
        half_life_days: Half-life of the events in the user's own past.
        shrinkage: Added to the product of lengths, which reduces the weight of rare pairs.
    """

    def __init__(self, training: Training, *, half_life_days: float, shrinkage: float = 10) -> None:
        seen = training.counts()
        seen.data = np.log1p(seen.data)
        lengths = np.sqrt(seen.multiply(seen).sum(axis=0)).A1
        pairs = (seen.T @ seen).tocoo()
        apart = pairs.row != pairs.col
        row, column, product = pairs.row[apart], pairs.col[apart], pairs.data[apart]
        similarity = product / (lengths[row] * lengths[column] + shrinkage)
        size = training.advertisers
        self._similarity = sp.csr_matrix((similarity, (row, column)), shape=(size, size))
        self._half_life_days = half_life_days

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a past."""
        rows, days = case.past
        weights = fading(case.day - days, self._half_life_days)
        counts = np.log1p(np.bincount(rows, weights, minlength=self._similarity.shape[0]))
        present = np.flatnonzero(counts)
        return normalised(counts[present] @ self._similarity[present])
