"""Collaborative filtering: users alike, and advertisers that the same users act on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from adprior_bench.quality.baselines.base import Training, normalised
from adprior_bench.quality.histories import EncodedCase, Float64Array


def _matrix(training: Training) -> tuple[sp.csr_matrix, Float64Array]:
    """Return log-counts by inverse user frequency, [users, advertisers], and those frequencies."""
    owners, rows, _ = training.events()
    shape = (len(training.users), training.advertisers)
    counts = sp.csr_matrix((np.ones(len(rows)), (owners, rows)), shape=shape)
    counts.sum_duplicates()
    users_of = np.diff(counts.tocsc().indptr)
    rarity = np.log((1 + len(training.users)) / (1 + users_of))
    counts.data = np.log1p(counts.data)
    return counts @ sp.diags(rarity), rarity


def _profile_of(case: EncodedCase, rarity: Float64Array, half_life_days: float) -> Float64Array:
    rows, days = case.past
    weights = 0.5 ** ((case.day - days) / half_life_days)
    counts = np.bincount(rows, weights, minlength=len(rarity))
    scaled: Float64Array = np.log1p(counts) * rarity
    return scaled


class UserNeighbours:
    """The advertisers of the training users most alike (cosine).

    Args:
        training: The users.
        neighbours: How many count.
        half_life_days: How fast the asked user's own events fade.
        power: Of the similarity, as a neighbour's weight.
    """

    def __init__(
        self, training: Training, *, neighbours: int, half_life_days: float = 365, power: float = 1
    ) -> None:
        matrix, self._rarity = _matrix(training)
        lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1
        self._unit = sp.diags(1 / np.maximum(lengths, 1e-12)) @ matrix
        owners, rows, _ = training.events()
        shape = (len(training.users), training.advertisers)
        counts = sp.csr_matrix((np.ones(len(rows)), (owners, rows)), shape=shape)
        self._shares = sp.diags(1 / np.maximum(counts.sum(axis=1).A1, 1)) @ counts
        self._neighbours, self._half_life_days = neighbours, half_life_days
        self._power = power
        self._places = {user.user_id: place for place, user in enumerate(training.users)}

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a past."""
        asked = _profile_of(case, self._rarity, self._half_life_days)
        length = float(np.linalg.norm(asked))
        if length == 0:
            return np.zeros(len(asked))
        alike = self._unit @ (asked / length)
        if (own := self._places.get(case.user.user_id)) is not None:
            alike[own] = 0  # nobody is their own neighbour
        count = min(self._neighbours, len(alike))
        nearest = np.argpartition(-alike, count - 1)[:count]
        weights = np.maximum(alike[nearest], 0) ** self._power
        return normalised(weights @ self._shares[nearest])


class ItemNeighbours:
    """The advertisers that go with those of the user's past (cosine over users).

    Args:
        training: The users.
        half_life_days: How fast the asked user's own events fade.
        shrinkage: Added to the product of lengths, so that rare pairs count less.
    """

    def __init__(self, training: Training, *, half_life_days: float, shrinkage: float = 10) -> None:
        owners, rows, _ = training.events()
        shape = (len(training.users), training.advertisers)
        seen = sp.csr_matrix((np.ones(len(rows)), (owners, rows)), shape=shape)
        seen.sum_duplicates()
        seen.data = np.log1p(seen.data)
        lengths = np.sqrt(seen.multiply(seen).sum(axis=0)).A1
        pairs = (seen.T @ seen).tocoo()
        apart = pairs.row != pairs.col
        row, column, product = pairs.row[apart], pairs.col[apart], pairs.data[apart]
        alike = product / (lengths[row] * lengths[column] + shrinkage)
        self._alike = sp.csr_matrix((alike, (row, column)), shape=(shape[1], shape[1]))
        self._half_life_days = half_life_days

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`; all 0 for a user without a past."""
        rows, days = case.past
        weights = 0.5 ** ((case.day - days) / self._half_life_days)
        asked = np.log1p(np.bincount(rows, weights, minlength=self._alike.shape[0]))
        present = np.flatnonzero(asked)
        return normalised(asked[present] @ self._alike[present])
