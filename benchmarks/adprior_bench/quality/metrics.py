"""How well forecasts find the advertisers of a day: recall, MRR, nDCG and log-loss.

A forecast is scored once (`score`), against a whole probability matrix that can then be dropped;
every metric of every cohort is read off the ranks. Advertisers of equal probability are ranked in
one fixed shuffled order: catalogues often come in order of popularity, which a ranker that ties (a
list cut short, a history without filling) must not be given for free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.cohorts import Cohort, Targets
from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.intervals import Draws, UserBootstrap
from adprior_runtime.errors import InvalidInputError

RECALL_AT: Final = (1, 5, 10, 20)

DEPTH: Final = 20
"""How much of a list nDCG and calibration look at."""

SMALLEST_PROBABILITY: Final = 1e-9
"""What log-loss takes for a smaller probability: a target that was ruled out costs 20.7 nats."""

_SUM_TOLERANCE: Final = 1e-3
_TIE_SEED: Final = 0
_BLOCK_ELEMENTS: Final = 4_000_000

Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """All that the metrics need of a ranker's forecasts.

    Attributes:
        ranks: int64 [targets], 1 for the most probable advertiser.
        losses: float64 [targets], -log of the probability, see `SMALLEST_PROBABILITY`.
        top_rows: int64 [cases, depth], the most probable advertisers, best first.
        top_probabilities: float32 [cases, depth].
        advertisers: How many the catalogue has.
    """

    ranks: Int64Array
    losses: Float64Array
    top_rows: Int64Array
    top_probabilities: Float32Array
    advertisers: int


def score(probabilities: Float32Array, targets: Targets) -> Scored:
    """Score one ranker's forecasts.

    Args:
        probabilities: float32 [cases, advertisers], of being a random advertiser of the day. A
            row's sum is at most 1.
        targets: Of the same cases.

    Raises:
        InvalidInputError: The matrix has another number of rows, or a row is no distribution.
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
        _refuse(block, start)
        keys = _sort_keys(block, tie_order)
        best = np.sort(np.partition(keys, advertisers - depth)[:, advertisers - depth :])[:, ::-1]
        top_rows[start : start + step] = row_of[(best & np.uint64(0xFFFFFFFF)).astype(np.int64)]
        mine = slice(*np.searchsorted(targets.cases, [start, start + step]))
        whose = targets.cases[mine] - start
        for index, (case, row) in enumerate(zip(whose, targets.rows[mine], strict=True)):
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
    """Return what each case of a cohort is worth: float64 [cases] each, 0 outside the cohort.

    ``recall@k`` is hits / targets. ``mrr`` is 1 / the best target's rank. ``ndcg@20`` has gains of
    1 / log2(1 + rank), over those of the best list possible (Järvelin & Kekäläinen 2002). Targets
    that the catalogue lacks count as missed; a case with no other has 0 of everything.
    """
    case, rank = targets.cases[cohort.targets], scored.ranks[cohort.targets]
    count = len(targets.users)
    total = np.maximum(cohort.counts, 1)
    values = {
        f"recall@{k}": np.bincount(case[rank <= k], minlength=count) / total for k in RECALL_AT
    }
    best = np.full(count, np.inf)
    np.minimum.at(best, case, rank)
    gains = np.bincount(case, (rank <= DEPTH) / np.log2(1 + rank), minlength=count)
    ideal = np.cumsum(1 / np.log2(np.arange(2, DEPTH + 2)))
    return values | {"mrr": 1 / best, f"ndcg@{DEPTH}": gains / ideal[np.minimum(total, DEPTH) - 1]}


def measure_forecasts(
    scored: Scored, targets: Targets, cohort: Cohort, bootstrap: UserBootstrap
) -> dict[str, Draws]:
    """Return draws of all metrics, paired between rankers scored on the same cases.

    Those of `case_values` are means over the cohort's cases. ``log_loss`` is in nats per target of
    the catalogue; the targets that it lacks are left out.
    """
    draws = {
        name: bootstrap.mean(values, cohort.cases)
        for name, values in case_values(scored, targets, cohort).items()
    }
    chosen = cohort.targets
    losses = np.bincount(targets.cases[chosen], scored.losses[chosen], len(targets.users))
    return draws | {"log_loss": bootstrap.ratio(losses, targets.count(chosen))}


def _refuse(block: Float32Array, start: int) -> None:
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

    The bits of floats that are not negative order as the floats do.
    """
    bits = (block + np.float32(0)).astype(np.float32).view(np.uint32)  # + 0 makes -0 a plain 0
    keys: npt.NDArray[np.uint64] = (bits.astype(np.uint64) << np.uint64(32)) | tie_order.astype(
        np.uint64
    )
    return keys
