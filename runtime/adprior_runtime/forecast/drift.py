"""How far what is served has moved from the bundle: the population stability index (PSI).

With p_i the share of bin i in what was shown of late and q_i its share in the reference::

    PSI = sum over i of (p_i - q_i) ln(p_i / q_i)

(B. Yurdakul, "Statistical Properties of Population Stability Index", Western Michigan University,
2018: it is Kullback and Leibler's divergence in both directions, summed.) The reference is the
advertisers' popularity in training, cut into tenths by falling popularity. Every forecast counts
the same, split over the bins by the probability that it shows: so a thousand of them tell much
smaller changes from chance than sums of the probabilities do, which few sure forecasts make up.

The level depends on the bundle: a forecast shows the probable advertisers only, which are popular
ones, so that it is above 0 without any drift. What tells of drift is a change.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

POPULARITY_BINS: Final = 10
_WINDOW_FORECASTS: Final = 1000
_PRIOR_FORECASTS: Final = 20.0
"""The reference counts as so many forecasts: without any the index is 0."""

_Float64Array = npt.NDArray[np.float64]


def stability_index(shown: _Float64Array, reference: _Float64Array) -> float:
    """Return the PSI of two distributions.

    Args:
        shown: [bins], above 0, of any sum.
        reference: [bins], likewise.
    """
    p, q = shown / shown.sum(), reference / reference.sum()
    return float(((p - q) * np.log(p / q)).sum())


class PopularityBins:
    """Each advertiser's tenth of the popularity; an advertiser with more has it to itself.

    Attributes:
        of_row: int64 [advertisers], 0 for the most popular ones.
        shares: float64 [`POPULARITY_BINS`], the popularity in each; 0 where there is none.
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
        """Split a forecast over the bins by the probability shown.

        Args:
            rows: [k], the advertisers' rows of the catalogue.
            log_probs: [k].

        Returns:
            float64 [`POPULARITY_BINS`] of sum 1, or 0 where nothing is shown.
        """
        logs = log_probs.astype(np.float64)
        highest = logs.max(initial=-np.inf)
        if highest == -np.inf:
            return np.zeros(POPULARITY_BINS)
        # Relative to the largest: shares of probabilities that no double can hold are shares too.
        shown = self._sum(self.of_row[rows], np.exp(logs - highest))
        shares: _Float64Array = shown / shown.sum()
        return shares

    @staticmethod
    def _sum(bins: npt.NDArray[np.int64], weights: _Float64Array) -> _Float64Array:
        sums: _Float64Array = np.bincount(bins, weights, POPULARITY_BINS).astype(np.float64)
        return sums


class PopularityDrift:
    """The index over the last forecasts, older ones counting exponentially less.

    Args:
        shares: [bins], the reference.
        window: After so many more forecasts one counts 1/e.
    """

    def __init__(self, shares: _Float64Array, *, window: int = _WINDOW_FORECASTS) -> None:
        self._filled = shares > 0
        self._reference = shares[self._filled]
        self._kept = 1 - 1 / window
        self._shown = np.zeros_like(self._reference)

    def add(self, shares: _Float64Array) -> None:
        """Take one forecast, as `PopularityBins.split` gives it; it costs microseconds."""
        self._shown = self._kept * self._shown + shares[self._filled]

    def index(self) -> float:
        """Return the index of the window."""
        return stability_index(self._shown + _PRIOR_FORECASTS * self._reference, self._reference)
