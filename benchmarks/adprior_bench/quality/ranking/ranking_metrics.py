"""Metrics of a ranking of labelled rows, in all resamples of users at once.

Rows are sorted once. AUC and PR-AUC depend only on the positions of the positives: the negatives
between two positions are counted by user, so that a resample costs a product of a sparse matrix
with the users' weights, and cumulative sums over the positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import xlogy

from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.intervals import Draws, Estimate, UserBootstrap, divide, estimate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingDraws:
    """Draws of all metrics of one ranker, paired between rankers on the same rows.

    Attributes:
        auc: Chance that a positive is ranked above a negative; ties count half.
        user_auc: Mean over users with both labels of the AUC among their own rows.
        pr_auc: Average precision.
        log_loss: Mean log-loss in nats per row.
        normalised_entropy: Log-loss divided by that of the constant base rate (He et al. 2014,
            "Practical lessons from predicting clicks on ads at Facebook").
    """

    auc: Draws
    user_auc: Draws
    pr_auc: Draws
    log_loss: Draws
    normalised_entropy: Draws

    def gain(self, reference: RankingDraws, metric: str) -> Estimate:
        """Return a metric's paired relative change against a reference: 0.01 is 1 % more."""
        return estimate(getattr(self, metric) / getattr(reference, metric) - 1)


def measure_ranking(
    logits: npt.NDArray[Any], labels: npt.NDArray[Any], bootstrap: UserBootstrap
) -> RankingDraws:
    """Measure one ranker.

    Args:
        logits: [rows], a higher one ranks first; their sigmoid is the predicted probability.
        labels: [rows], 0 or 1.
        bootstrap: Over the rows' users.
    """
    positive = labels.astype(np.bool_)
    auc, pr_auc = area_draws(logits, positive, bootstrap)
    per_user = user_auc(logits, positive, bootstrap)
    has_both = np.isfinite(per_user)
    columns = np.stack([np.where(has_both, per_user, 0.0), has_both.astype(np.float64)], axis=1)
    above, below = np.concatenate([counts @ columns for counts in bootstrap.blocks(2)]).T
    log_loss = log_loss_draws(logits, positive, bootstrap)
    rate = bootstrap.mean(positive)
    entropy = -xlogy(rate, rate) - xlogy(1 - rate, 1 - rate)
    return RankingDraws(
        auc=auc,
        user_auc=divide(above, below),
        pr_auc=pr_auc,
        log_loss=log_loss,
        normalised_entropy=divide(log_loss, entropy),
    )


def area_draws(
    scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], bootstrap: UserBootstrap
) -> tuple[Draws, Draws]:
    """Return draws of AUC and of average precision, NaN in a resample with one label only.

    Average precision is defined as in scikit-learn: equal scores are one threshold. Arguments are
    those of `measure_ranking`.
    """
    level: npt.NDArray[np.int64] = np.unique(-scores, return_inverse=True)[1]  # 0 is the best
    levels = np.unique(level[positive])  # those with a positive
    place = np.searchsorted(levels, level)  # the first such level at or below the row
    on_level = np.isin(level, levels)
    # Segment 2 i holds the negatives between the levels i - 1 and i, segment 2 i + 1 those on i.
    segment = 2 * place + on_level
    positives = _count_by_user(place[positive], len(levels), positive, bootstrap)
    negatives = _count_by_user(segment[~positive], 2 * len(levels) + 1, ~positive, bootstrap)
    found = [
        _areas(positives @ counts.T, negatives @ counts.T)
        for counts in bootstrap.blocks(5 * len(levels))
    ]
    areas: Float64Array = np.concatenate(found, axis=1)
    return areas[0], areas[1]


def log_loss_draws(
    logits: npt.NDArray[Any], positive: npt.NDArray[np.bool_], bootstrap: UserBootstrap
) -> Draws:
    """Return draws of the log-loss in nats per row."""
    exact = logits.astype(np.float64)
    return bootstrap.mean(np.logaddexp(0, exact) - positive * exact)


def user_auc(
    scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], bootstrap: UserBootstrap
) -> Float64Array:
    """Return each user's AUC among their own rows: float64 [users], NaN without both labels."""
    owner = bootstrap.places
    order = np.lexsort((scores, owner))
    owner, scores, positive = owner[order], scores[order], positive[order]
    starts_tie = np.ones(len(order), dtype=np.bool_)
    starts_tie[1:] = (owner[1:] != owner[:-1]) | (scores[1:] != scores[:-1])
    tie = np.cumsum(starts_tie) - 1
    middle = np.flatnonzero(starts_tie) + (np.bincount(tie) - 1) / 2  # mean position of a tie
    rows = np.bincount(owner, minlength=bootstrap.users)
    rank = middle[tie] - (np.cumsum(rows) - rows)[owner]  # among the user's rows, 0 the lowest
    hits = np.bincount(owner, positive, minlength=bootstrap.users)
    misses = rows - hits
    above = np.bincount(owner, rank * positive, minlength=bootstrap.users) - hits * (hits - 1) / 2
    return divide(above, hits * misses)


def _count_by_user(
    segment: npt.NDArray[np.int64],
    segments: int,
    chosen: npt.NDArray[np.bool_],
    bootstrap: UserBootstrap,
) -> sparse.csr_matrix:
    """Count chosen rows by segment and user: [segments, users]."""
    owner = bootstrap.places[chosen]
    shape = (segments, bootstrap.users)
    return sparse.csr_matrix((np.ones(len(owner)), (segment, owner)), shape=shape)


def _areas(positives: Float64Array, negatives: Float64Array) -> Float64Array:
    """Return AUC and average precision of each draw: [2, draws], from [levels, draws] counts."""
    true, false = np.cumsum(positives, axis=0), np.cumsum(negatives, axis=0)
    all_true, all_false = positives.sum(axis=0), false[-1]
    so_far = false[1::2]  # negatives at or above each level
    outranked = all_false - so_far + negatives[1::2] / 2
    precision = true / np.maximum(true + so_far, 1)
    return np.stack(
        [
            divide((positives * outranked).sum(axis=0), all_true * all_false),
            divide((positives * precision).sum(axis=0), all_true),
        ]
    )
