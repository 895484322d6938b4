"""Metrics of forecasts: recall@k, MRR, nDCG@20 and log-loss.

A probability matrix is scored once (`score`) and can then be freed; the metrics of all cohorts
follow from the ranks. Advertisers of equal probability are ranked in one fixed random order:
catalogues are often sorted by popularity, and ties must not be an advantage there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.cohorts import Cohort, Targets
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.intervals import Draws, UserBootstrap
from adprior_runtime.errors import InvalidInputError

RECALL_AT: Final = (1, 5, 10, 20)
EXPLORE_AT: Final = (*RECALL_AT, 50)
DEPTH: Final = 20
"""Length of the lists for nDCG and calibration."""
TUNING_DEPTH: Final = 10
"""Settings are chosen by the recall in this length of lists."""
SMALLEST_PROBABILITY: Final = 1e-9
"""Lower bound of probabilities in log-loss: a target that was ruled out costs 20.7 nats."""

_SUM_TOLERANCE: Final = 1e-3
_TIE_SEED: Final = 0
_BLOCK_ELEMENTS: Final = 4_000_000

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """A ranker's forecasts, reduced to the values that the metrics need.

    Attributes:
        ranks: int64 [targets], 1 for the most probable advertiser.
        losses: float64 [targets], -log of the probability, see `SMALLEST_PROBABILITY`.
        top_rows: int64 [cases, depth], the most probable advertisers, best first.
        top_probabilities: float32 [cases, depth].
        advertisers: Size of the catalogue.
    """

    ranks: Int64Array
    losses: Float64Array
    top_rows: Int64Array
    top_probabilities: Float32Array
    advertisers: int


def score(probabilities: Float32Array, targets: Targets) -> Scored:
    """Score one ranker's forecasts.

    Args:
        probabilities: float32 [cases, advertisers], each that of a random advertiser of the day.
            A row's sum is at most 1.
        targets: Targets of the same cases.

    Raises:
        InvalidInputError: The number of rows is wrong, or a row is no distribution.
    """
    cases, advertisers = probabilities.shape
    if cases != len(targets.users):
        raise InvalidInputError(f"forecasts for {cases} cases, expected {len(targets.users)}")
    depth = min(DEPTH, advertisers)
    step = max(1, _BLOCK_ELEMENTS // advertisers)
    tie_order = np.random.default_rng(_TIE_SEED).permutation(advertisers)
    row_of = np.argsort(tie_order)
    ranks = np.empty(len(targets.rows), dtype=np.int64)
    top_rows = np.empty((cases, depth), dtype=np.int64)
    for start in range(0, cases, step):
        block = probabilities[start : start + step]
        _require_distributions(block, start)
        keys = _sort_keys(block, tie_order)
        best = np.sort(np.partition(keys, advertisers - depth)[:, advertisers - depth :])[:, ::-1]
        top_rows[start : start + step] = row_of[(best & np.uint64(0xFFFFFFFF)).astype(np.int64)]
        mine = slice(*np.searchsorted(targets.cases, [start, start + step]))
        owners = targets.cases[mine] - start
        for index, (case, row) in enumerate(zip(owners, targets.rows[mine], strict=True)):
            ranks[mine.start + index] = 1 + np.count_nonzero(keys[case] > keys[case, row])
    found = probabilities[targets.cases, targets.rows].astype(np.float64)
    return Scored(
        ranks=ranks,
        losses=-np.log(np.maximum(found, SMALLEST_PROBABILITY)),
        top_rows=top_rows,
        top_probabilities=np.take_along_axis(probabilities, top_rows, axis=1),
        advertisers=advertisers,
    )


def case_values(scored: Scored, targets: Targets, cohort: Cohort) -> dict[str, Float64Array]:
    """Return the metrics of each case: float64 [cases] each, 0 outside the cohort.

    ``recall@k`` is hits / targets. ``mrr`` is 1 / the best target's rank. ``ndcg@20`` is the sum of
    1 / log2(1 + rank) over that of the best possible list (Järvelin and Kekäläinen 2002). Targets
    that are not in the catalogue count as missed.
    """
    case, rank = targets.cases[cohort.targets], scored.ranks[cohort.targets]
    count = len(targets.users)
    total = np.maximum(cohort.counts, 1)
    values = {
        f"recall@{k}": np.bincount(case[rank <= k], minlength=count) / total for k in EXPLORE_AT
    }
    best = np.full(count, np.inf)
    np.minimum.at(best, case, rank)
    gains = np.bincount(case, (rank <= DEPTH) / np.log2(1 + rank), minlength=count)
    ideal = np.cumsum(1 / np.log2(np.arange(2, DEPTH + 2)))
    return values | {"mrr": 1 / best, f"ndcg@{DEPTH}": gains / ideal[np.minimum(total, DEPTH) - 1]}


def measure_forecasts(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> dict[str, Draws]:
    """Return draws of all metrics, paired between rankers that are scored on the same cases.

    `case_values` are averaged over the cohort's cases. ``log_loss`` is in nats per target of the
    catalogue.
    """
    draws = {
        name: bootstrap.mean(values, cohort.cases)
        for name, values in case_values(scored, targets, cohort).items()
    }
    chosen = cohort.targets
    losses = np.bincount(targets.cases[chosen], scored.losses[chosen], len(targets.users))
    return draws | {"log_loss": bootstrap.ratio(losses, targets.count(chosen))}


def case_recalls(
    forecasts: Float32Array, cases: Sequence[EncodedCase], k: int = TUNING_DEPTH
) -> Float64Array:
    """Return recall@k of each case without a fixed order of ties: cheap, for tuning."""
    k = min(k, forecasts.shape[1])
    top = np.argpartition(-forecasts, k - 1, axis=1)[:, :k]
    return np.array(
        [
            len(np.intersect1d(row, case.targets)) / (len(case.targets) + case.missed)
            for row, case in zip(top, cases, strict=True)
        ]
    )


def mean_recall(
    forecasts: Float32Array, cases: Sequence[EncodedCase], k: int = TUNING_DEPTH
) -> float:
    """Return the mean of `case_recalls`."""
    return float(case_recalls(forecasts, cases, k).mean())


def _require_distributions(block: Float32Array, start: int) -> None:
    sums = block.sum(axis=1, dtype=np.float64)
    wrong = ~(sums <= 1 + _SUM_TOLERANCE) | ~(block.min(axis=1) >= 0)
    if wrong.any():
        case = int(np.flatnonzero(wrong)[0])
        raise InvalidInputError(
            f"forecast {start + case} (from 0): probabilities from {block[case].min():.4g} with "
            f"sum {sums[case]:.4g}, expected none below 0 and a sum of at most 1"
        )


def _sort_keys(block: Float32Array, tie_order: Int64Array) -> npt.NDArray[np.uint64]:
    """Return distinct keys, higher is better: the probability's bits, then the order of ties.

    The bits of non-negative floats have the order of the floats.
    """
    bits = (block + np.float32(0)).astype(np.float32).view(np.uint32)  # + 0 turns -0 into 0
    high = bits.astype(np.uint64) << np.uint64(32)
    keys: npt.NDArray[np.uint64] = high | tie_order.astype(np.uint64)
    return keys
