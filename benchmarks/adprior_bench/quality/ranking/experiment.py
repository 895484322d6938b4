"""Does a forecast add to ranking? The same head, fed with the real forecast and with others.

Users in three groups: the base ranker learns from training users' days after the cut,
recalibration and head from a second group, and the result is read off a third. The reference is
the base ranker with a recalibration of its own logit, sigmoid(a z + b), fitted on the rows that
the head is fitted on; each head is then fitted as serving applies it, z' = a z + b + g(x), with
the same clamp. So a gain over the reference is the forecast's and nothing else's. Every forecast
goes through the same steps, the choice of the head's form by cross-validation over the head's
users among them: a false one has every chance that the real one has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.base_ranker import BaseRanker
from adprior_bench.quality.ranking.head_choice import (
    CLAMP,
    REFERENCE,
    RankedRows,
    VariantFigures,
    apply_head,
    best_variant,
    compare_variants,
)
from adprior_bench.quality.ranking.head_features import (
    live_priors,
    matrix_features,
    random_forecast,
    shuffled_forecast,
)
from adprior_bench.quality.ranking.impressions import CANDIDATES, SEED, simulate_impressions
from adprior_bench.quality.study import Study
from adprior_build.head.logistic_fit import fit_recalibration
from adprior_build.head.variants import fit_variant
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.head import PriorHead
from adprior_runtime.terminal.progress import track

BASE: Final = "base"
RANDOM: Final = "random"
SHUFFLED: Final = "shuffled"
SHIPPED: Final = "shipped_head"
"""The bundle's own head on the real forecast; the others are fitted anew."""

Matrix: TypeAlias = npt.NDArray[Any]
_Float32Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingResult:
    """The judged rows, each with a logit from every ranker.

    Attributes:
        users: Each row's user id, [rows].
        cases: int64 [rows], positions in the judged cases; a request each.
        labels: float64 [rows], 0 or 1.
        logits: float64 [rows] by ranker: `BASE`, `REFERENCE`, `SHIPPED` where there is one, and one
            for each forecast.
        fitted: What recalibration and heads were fitted on.
        chosen: By forecast, the form of its head, with the penalty.
        variants: By forecast, what that was chosen from, the reference first; cross-validated on
            ``fitted``.
        recalibration: a and b.
        clamped: By forecast, the share of rows whose increment met the clamp.
        importance: The base ranker's features by their share of the gain.
    """

    users: npt.NDArray[np.str_]
    cases: npt.NDArray[np.int64]
    labels: Float64Array
    logits: Mapping[str, Float64Array]
    fitted: RankedRows
    chosen: Mapping[str, VariantFigures]
    variants: Mapping[str, Sequence[VariantFigures]]
    recalibration: tuple[float, float]
    clamped: Mapping[str, float]
    importance: Mapping[str, float]


def rank_rows(
    study: Study,
    groups: Sequence[Sequence[EncodedCase]],
    *,
    seed: int = SEED,
    candidates: int = CANDIDATES,
    threads: int = 0,
) -> tuple[BaseRanker, list[RankedRows]]:
    """Fit the base ranker on training users, and let it rank simulated logs of other users.

    Args:
        study: Whose training users teach the ranker.
        groups: Cases of other users, a log each.
        seed: Of the simulated logs.
        candidates: In each request, the ranker's own lessons included.
        threads: LightGBM's; 0 takes what there is.
    """
    taught = simulate_impressions(study.training, study.later, seed=seed, candidates=candidates)
    ranker = BaseRanker(study.training, study.later, taught, threads=threads)
    found = []
    for cases in groups:
        impressions = simulate_impressions(study.training, cases, seed=seed, candidates=candidates)
        logits = ranker.logits(cases, impressions)
        found.append(RankedRows(cases=cases, impressions=impressions, logits=logits))
    return ranker, found


def measure_ranking(
    study: Study,
    head_cases: Sequence[EncodedCase],
    judged_cases: Sequence[EncodedCase],
    forecasts: Mapping[str, tuple[Matrix, Matrix]],
    advertisers: Advertisers,
    *,
    real: str,
    forecast_k: int = 20,
    shipped: PriorHead | None = None,
    seed: int = SEED,
    threads: int = 0,
) -> RankingResult:
    """Rank the judged cases with and without each forecast, and with two made of the real one.

    Args:
        study: Its training users teach the base ranker.
        head_cases: Of the users that recalibration and heads are fitted on.
        judged_cases: Of other users.
        forecasts: By name, probabilities [cases, advertisers] for the head's and the judged cases;
            see `matrix_features`.
        advertisers: The bundle's.
        real: The name of the forecast in question; `RANDOM` and `SHUFFLED` are made of it.
        forecast_k: The bundle's.
        shipped: The bundle's own head, to be fed with the real forecast as it is.
        seed: Of logs and draws.
        threads: LightGBM's; 0 takes what there is.

    Raises:
        InvalidInputError: The users of the two groups overlap, a matrix does not fit its cases, or
            a group's rows have one label only.
    """
    _check(head_cases, judged_cases, forecasts, real, len(advertisers.ids))
    ranker, (fitted, judged) = rank_rows(
        study, [head_cases, judged_cases], seed=seed, threads=threads
    )
    _require_both_labels(fitted, judged)
    labels = fitted.impressions.labels
    slope, shift = fit_recalibration(fitted.logits, labels)
    offsets, reference = slope * fitted.logits + shift, slope * judged.logits + shift

    def features(name: str) -> tuple[_Float32Array, _Float32Array]:
        first, second = _forecast(name, forecasts, real, head_cases, judged_cases, seed)
        return (
            matrix_features(first, fitted.impressions, advertisers, forecast_k),
            matrix_features(second, judged.impressions, advertisers, forecast_k),
        )

    variants, chosen, clamped = {}, {}, {}
    logits = {BASE: judged.logits, REFERENCE: reference}
    fed = (*forecasts, RANDOM, SHUFFLED)
    for name in track(fed, desc="heads, one for each forecast", unit="forecast"):
        learnt, asked = features(name)
        variants[name] = compare_variants(learnt, fitted)
        chosen[name] = form = best_variant(variants[name])
        head = fit_variant(form.name, learnt, offsets, labels, l2=form.l2, clamp=CLAMP)
        logits[name] = apply_head(head, asked, reference)
        clamped[name] = float((np.abs(head.increments(asked)) > head.clamp).mean())
        if name == real and shipped is not None:
            adjusted = shipped.adjust(reference.astype(np.float32), live_priors(asked))
            logits[SHIPPED] = adjusted.logits.astype(np.float64)
    owners = np.array([case.user.user_id for case in judged_cases])
    return RankingResult(
        users=owners[judged.impressions.cases],
        cases=judged.impressions.cases,
        labels=judged.impressions.labels,
        logits=logits,
        fitted=fitted,
        chosen=chosen,
        variants=variants,
        recalibration=(slope, shift),
        clamped=clamped,
        importance=ranker.importance(),
    )


def _require_both_labels(*groups: RankedRows) -> None:
    for rows in groups:
        if len(np.unique(rows.impressions.labels)) < 2:
            raise InvalidInputError(
                f"{len(rows.cases)} cases give ranking rows of one label only; expected both"
            )


def _forecast(
    name: str,
    forecasts: Mapping[str, tuple[Matrix, Matrix]],
    real: str,
    head_cases: Sequence[EncodedCase],
    judged_cases: Sequence[EncodedCase],
    seed: int,
) -> tuple[Matrix, Matrix]:
    if name in forecasts:
        return forecasts[name]
    first, second = forecasts[real]
    if name == RANDOM:
        return random_forecast(first, seed), random_forecast(second, seed + 1)
    return (
        shuffled_forecast(first, head_cases, seed),
        shuffled_forecast(second, judged_cases, seed + 1),
    )


def _check(
    head_cases: Sequence[EncodedCase],
    judged_cases: Sequence[EncodedCase],
    forecasts: Mapping[str, tuple[Matrix, Matrix]],
    real: str,
    advertisers: int,
) -> None:
    groups = [{case.user.user_id for case in cases} for cases in (head_cases, judged_cases)]
    if both := groups[0] & groups[1]:
        raise InvalidInputError(f"{len(both)} users are in both groups; expected none")
    if real not in forecasts:
        raise InvalidInputError(f"forecast {real}: not among {', '.join(forecasts)}")
    if taken := {BASE, REFERENCE, RANDOM, SHIPPED, SHUFFLED} & set(forecasts):
        raise InvalidInputError(f"forecast {min(taken)}: the name is taken")
    expected = [(len(cases), advertisers) for cases in (head_cases, judged_cases)]
    for name in forecasts:
        if (shapes := [matrix.shape for matrix in forecasts[name]]) != expected:
            raise InvalidInputError(f"forecast {name}: found shapes {shapes}, expected {expected}")
