"""Whether forecast probabilities are true: the reliability diagram and its summary figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.cohorts import Cohort, Targets
from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.intervals import Draws, Estimate, UserBootstrap, estimate
from adprior_bench.quality.metrics import Scored

BINS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Pairs of alike predictions: the mean prediction, what was observed, how many there are."""

    predicted: float
    observed: Estimate
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """How predictions compare with what happened, over the pairs of all cases' top lists.

    Attributes:
        bins: By prediction, lowest first.
        ece: Draws of the expected calibration error: the mean over bins, by pairs, of
            |mean predicted - mean observed| (Naeini et al. 2015). Take its interval `centred`.
        predicted_over_observed: Draws of mean predicted / mean observed.
    """

    bins: Sequence[ReliabilityBin]
    ece: Draws
    predicted_over_observed: Draws


def observed_shares(scored: Scored, targets: Targets, cohort: Cohort) -> Float64Array:
    """Return what was observed of each (case, listed advertiser) pair: float64 [cases, depth].

    A forecast P(a | user) is the probability that a random one of the day's advertisers is a. So a
    pair's observation is [a is one of them] / how many there are, those that the catalogue lacks
    counted: over all advertisers, these sum to at most 1 in a case, as forecasts do.
    """
    case = np.arange(len(targets.users))[:, np.newaxis]
    listed = case * scored.advertisers + scored.top_rows
    hit = np.isin(listed, targets.cases * scored.advertisers + targets.rows)
    shares: Float64Array = hit / np.maximum(cohort.counts, 1)[:, np.newaxis]
    return shares


def calibrate(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> Calibration:
    """Compare predictions with observations over the top lists of a cohort's cases.

    The bins hold as many pairs each as equal predictions allow: those are never parted, so a ranker
    that tells all users the same has fewer bins. Bins stay put in the resamples.

    Args:
        scored: One ranker's forecasts.
        targets: Of the same cases.
        cohort: Which cases; one that counts all targets of its cases (``all`` or ``covered``).
        bootstrap: Over the cases' users.
    """
    chosen = cohort.cases[:, np.newaxis] & np.ones(scored.top_rows.shape, dtype=np.bool_)
    predicted = scored.top_probabilities.astype(np.float64)
    bins = _equal_mass_bins(predicted, chosen)
    observed = observed_shares(scored, targets, cohort)
    by_bin = [
        bootstrap.totals(_sum_by_bin(values * chosen, bins))
        for values in (predicted, observed, np.ones_like(predicted))
    ]
    sums, shares, pairs = by_bin
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = shares / pairs
        return Calibration(
            bins=[
                ReliabilityBin(
                    predicted=float(sums[0, place] / pairs[0, place]),
                    observed=estimate(rates[:, place]),
                    pairs=int(pairs[0, place]),
                )
                for place in np.flatnonzero(pairs[0])
            ],
            ece=np.abs(sums - shares).sum(axis=1) / pairs.sum(axis=1),
            predicted_over_observed=sums.sum(axis=1) / shares.sum(axis=1),
        )


def _equal_mass_bins(
    predicted: Float64Array, chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    edges = np.quantile(predicted[chosen], np.arange(1, BINS) / BINS, method="higher")
    return np.searchsorted(edges, predicted, side="right").astype(np.int64)


def _sum_by_bin(values: Float64Array, bins: npt.NDArray[np.int64]) -> Float64Array:
    """Sum each case's values by bin: [cases, depth] to float64 [cases, bins]."""
    cases = len(values)
    places = np.arange(cases)[:, np.newaxis] * BINS + bins
    sums = np.bincount(places.ravel(), values.ravel(), cases * BINS).astype(np.float64)
    return sums.reshape(cases, BINS)
