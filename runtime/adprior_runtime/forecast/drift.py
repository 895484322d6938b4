"""Drift: how far recent forecasts are from the bundle, as a population stability index (PSI).

With p_i the share of bin i in recent forecasts and q_i its share in the reference::

    PSI = sum over i of (p_i - q_i) ln(p_i / q_i)

(B. Yurdakul, "Statistical Properties of Population Stability Index", Western Michigan University,
2018: it is the sum of the Kullback-Leibler divergences in both directions.) The reference is the
advertisers' popularity in training, in tenths by falling popularity. Every forecast has the same
weight, split over the bins by the probabilities that it shows. If the probabilities were summed
instead, a few certain forecasts would dominate, and a change would have to be larger to stand out
from chance.

The level depends on the bundle. A forecast shows probable advertisers, which are popular. So the
index is above 0 even without drift. A change of the index indicates drift.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

POPULARITY_BINS: Final = 10
_WINDOW_FORECASTS: Final = 1000
_PRIOR_FORECASTS: Final = 20.0
"""The reference counts like this many forecasts, so that the index starts at 0."""

_Float64Array = npt.NDArray[np.float64]


def stability_index(shown: _Float64Array, reference: _Float64Array) -> float:
    """Return the PSI of two distributions.

    Args:
        shown: [bins], positive; need not sum to 1.
        reference: [bins], positive; need not sum to 1.
    """
    p, q = shown / shown.sum(), reference / reference.sum()
    return float(((p - q) * np.log(p / q)).sum())


class PopularityBins:
    """The bin of each advertiser: a tenth of the total popularity.

    An advertiser with more than a tenth is alone in its bin.

    Attributes:
        of_row: int64 [advertisers], 0 for the most popular ones.
        shares: float64 [`POPULARITY_BINS`], each bin's popularity; a bin may be empty.
    """

    def __init__(self, log_popularity: npt.NDArray[np.float32]) -> None:
        shares = np.exp(log_popularity.astype(np.float64))
        shares /= shares.sum()
        order = np.argsort(-shares, kind="stable")
        middles = np.cumsum(shares[order]) - shares[order] / 2
        self.of_row = np.empty(len(shares), dtype=np.int64)
        self.of_row[order] = np.minimum(middles * POPULARITY_BINS, POPULARITY_BINS - 1)
        self.shares = self._sum(self.of_row, shares)

    def split(
        self, rows: npt.NDArray[np.int64], log_probs: npt.NDArray[np.float32]
    ) -> _Float64Array:
        """Split a forecast over the bins by its probabilities.

        Args:
            rows: [k], the advertisers' rows of the catalogue.
            log_probs: [k].

        Returns:
            float64 [`POPULARITY_BINS`], which sums to 1, or to 0 if the forecast is empty.
        """
        logs = log_probs.astype(np.float64)
        highest = logs.max(initial=-np.inf)
        if highest == -np.inf:
            return np.zeros(POPULARITY_BINS)
        # Divided by the largest, so that tiny probabilities do not underflow.
        shown = self._sum(self.of_row[rows], np.exp(logs - highest))
        shares: _Float64Array = shown / shown.sum()
        return shares

    @staticmethod
    def _sum(bins: npt.NDArray[np.int64], weights: _Float64Array) -> _Float64Array:
        sums: _Float64Array = np.bincount(bins, weights, POPULARITY_BINS).astype(np.float64)
        return sums


class PopularityDrift:
    """The index over recent forecasts, with exponentially falling weights.

    Args:
        shares: [bins], the reference.
        window: After this many further forecasts, a forecast's weight has fallen to 1/e.
    """

    def __init__(self, shares: _Float64Array, *, window: int = _WINDOW_FORECASTS) -> None:
        self._filled = shares > 0
        self._reference = shares[self._filled]
        self._kept = 1 - 1 / window
        self._shown = np.zeros_like(self._reference)

    def add(self, shares: _Float64Array) -> None:
        """Add one forecast, from `PopularityBins.split`."""
        self._shown = self._kept * self._shown + shares[self._filled]

    def index(self) -> float:
        """Return the current index."""
        return stability_index(self._shown + _PRIOR_FORECASTS * self._reference, self._reference)
