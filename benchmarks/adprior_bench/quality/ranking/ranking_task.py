"""The rows that rankers are compared on: simulated from the event log, or logged.

Recalibration and heads are fitted on one group of users; the figures come from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.ranking.base_ranker import BaseRanker, RankedRows, rank_rows
from adprior_bench.quality.ranking.impressions import SEED
from adprior_bench.quality.ranking.request_log import RequestLog
from adprior_bench.quality.study import Study


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingTask:
    """Candidates with the base ranker's logits.

    Attributes:
        name: What the report calls the log.
        notes: Where requests and logits come from.
        fitted: The rows that recalibration and heads are fitted on.
        test: The rows that the figures come from.
        importance: Each feature's share of the base ranker's gain; empty for a logged ranker.
    """

    name: str
    notes: Sequence[str]
    fitted: RankedRows
    test: RankedRows
    importance: Mapping[str, float]


def simulated_task(
    study: Study,
    head_cases: Sequence[EncodedCase],
    test_cases: Sequence[EncodedCase],
    *,
    seed: int = SEED,
    threads: int = 0,
) -> RankingTask:
    """Simulate requests of the cases, and a base ranker."""
    ranker, (fitted, test) = rank_rows(study, [head_cases, test_cases], seed=seed, threads=threads)
    return RankingTask(
        name="simulated log",
        notes=[
            "The log is simulated: one request for each case with an advertiser of the catalogue. "
            "The base ranker is LightGBM on history, recency, popularity, category and profile, "
            "fitted on the training users' days from the cut on."
        ],
        fitted=fitted,
        test=test,
        importance=ranker.importance(),
    )


def logged_task(study: Study, log: RequestLog, *, threads: int = 0) -> RankingTask:
    """Take logged requests; without logged logits, fit a base ranker on the earlier ones.

    Raises:
        InvalidInputError: The log has no logits and no earlier requests of training users.
    """
    if log.has_logits:
        logits, importance = [log.validation.logits, log.test.logits], {}
        origin = "The base ranker's logits are those of the log."
    else:
        earlier = log.training
        ranker = BaseRanker(
            study.training,
            earlier.cases,
            earlier.impressions,
            choose_rounds=True,
            threads=threads,
        )
        logits = [
            ranker.logits(rows.cases, rows.impressions) for rows in (log.validation, log.test)
        ]
        importance = ranker.importance()
        origin = (
            "The base ranker is LightGBM on history, recency, popularity, category and profile, "
            f"fitted on the training users' requests that closed before {study.splits.cut}, in "
            f"{ranker.rounds} rounds, which cross-validation over these users chose."
        )
    fitted, test = (
        RankedRows(cases=rows.cases, impressions=rows.impressions, logits=found)
        for rows, found in zip((log.validation, log.test), logits, strict=True)
    )
    return RankingTask(
        name="ranking log",
        notes=[
            "The log is logged, not simulated: requests, candidates and labels are those of the "
            f"given file. Forecasts use days strictly before a request's day. {origin}",
            *log.sentences(),
        ],
        fitted=fitted,
        test=test,
        importance=importance,
    )
