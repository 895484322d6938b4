"""Calibration of probabilities: reliability diagrams and the expected calibration error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.cohorts import Cohort, Targets
from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.intervals import Draws, Estimate, UserBootstrap, estimate
from adprior_bench.quality.metrics import DEPTH, Scored
from adprior_bench.report.schema import ReliabilityPlot, Table
from adprior_bench.report.tables import decimal, make_table

BINS: Final = 15
_PAIRS: Final = f"the {DEPTH} most probable advertisers of each case"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Pairs with similar predictions: mean prediction, mean observation, number of pairs."""

    predicted: float
    observed: Estimate
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Predictions against observations, over the (case, advertiser) pairs of all top lists.

    Attributes:
        bins: Lowest prediction first.
        ece: Draws of the expected calibration error: the mean over bins, weighted by pairs, of
            |mean predicted - mean observed| (Naeini et al. 2015). Its interval is `centred`.
        predicted_over_observed: Draws of mean predicted / mean observed.
    """

    bins: Sequence[ReliabilityBin]
    ece: Draws
    predicted_over_observed: Draws


def observed_shares(scored: Scored, targets: Targets, cohort: Cohort) -> Float64Array:
    """Return the observation of each (case, listed advertiser) pair: float64 [cases, depth].

    A forecast P(a | user) is the probability that a random advertiser of the day is a. The
    observation is 1 / the number of the day's advertisers if a is one of them, else 0. The number
    includes advertisers that are not in the catalogue.
    """
    case = np.arange(len(targets.users))[:, np.newaxis]
    listed = case * scored.advertisers + scored.top_rows
    hit = np.isin(listed, targets.cases * scored.advertisers + targets.rows)
    shares: Float64Array = hit / np.maximum(cohort.counts, 1)[:, np.newaxis]
    return shares


def calibrate(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> Calibration:
    """Compare predictions with observations in the top lists of a cohort's cases.

    Bins have equal numbers of pairs, but equal predictions share a bin: a ranker with the same
    forecast for all users has fewer bins. All resamples use the same bins.

    The cohort must include all targets of its cases (``all`` or ``covered``).
    """
    chosen = cohort.cases[:, np.newaxis] & np.ones(scored.top_rows.shape, dtype=np.bool_)
    predicted = scored.top_probabilities.astype(np.float64)
    edges = np.quantile(predicted[chosen], np.arange(1, BINS) / BINS, method="higher")
    bins = np.searchsorted(edges, predicted, side="right").astype(np.int64)
    observed = observed_shares(scored, targets, cohort)
    sums, shares, pairs = (
        bootstrap.totals(_sum_by_bin(values * chosen, bins))
        for values in (predicted, observed, np.ones_like(predicted))
    )
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


def calibration_table(found: Mapping[str, Calibration], ours: Collection[str]) -> Table:
    """Return the summary of each ranker's calibration."""
    return make_table(
        f"Calibration on {_PAIRS}",
        [
            {
                "ranker": ranker,
                "expected calibration error": estimate(each.ece, centred=True),
                "mean predicted / mean observed": estimate(each.predicted_over_observed),
                "highest bin: predicted": each.bins[-1].predicted,
                "highest bin: observed": each.bins[-1].observed,
            }
            for ranker, each in found.items()
        ],
        {
            "expected calibration error": decimal(4),
            "mean predicted / mean observed": decimal(2),
            "highest bin: predicted": decimal(4),
            "highest bin: observed": decimal(4),
        },
        highlight=lambda row: row["ranker"] in ours,
        note=f"There are {BINS} bins with equal numbers of pairs of a case and an advertiser. A "
        "prediction is the probability that a random advertiser of the day is the listed one. The "
        "observation is 1 / n if the listed one is among the day's n advertisers, else 0. Most of "
        "these probabilities are small, which makes a small error easy: look at the highest bin "
        "and at the reliability diagram.",
        detail=True,
    )


def reliability_plot(found: Mapping[str, Calibration], rankers: Collection[str]) -> ReliabilityPlot:
    """Return the reliability diagrams of some rankers."""
    return {
        "kind": "reliability",
        "name": "reliability",
        "title": f"Reliability on {_PAIRS}",
        "series": [
            {"label": ranker, "bins": [asdict(each) for each in found[ranker].bins]}
            for ranker in rankers
        ],
    }


def _sum_by_bin(values: Float64Array, bins: npt.NDArray[np.int64]) -> Float64Array:
    """Sum each case's values by bin: [cases, depth] to float64 [cases, bins]."""
    cases = len(values)
    places = np.arange(cases)[:, np.newaxis] * BINS + bins
    sums = np.bincount(places.ravel(), values.ravel(), cases * BINS).astype(np.float64)
    return sums.reshape(cases, BINS)
