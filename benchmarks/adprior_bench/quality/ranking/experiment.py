"""The ranking experiment: the same head with the model's forecast and with other forecasts.

There are three groups of users. The base ranker learns from training users, or is a logged one;
recalibration and heads from a second group, and the figures come from a third. The reference is
the base ranker with its own logit recalibrated, sigmoid(a z + b), on the same rows as the heads.
Each head is fitted as it is served, z' = a z + b + g(x) with the same clamp: a gain over the
reference is due to the forecast only. All forecasts go through the same steps, including the choice
of the head's form by cross-validation: false forecasts have the same chances as the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.base_ranker import RankedRows
from adprior_bench.quality.ranking.falsifiers import RANDOM, SHUFFLED, falsifiers
from adprior_bench.quality.ranking.head_choice import (
    REFERENCE,
    HeadForm,
    apply_head,
    best_head,
    compare_heads,
)
from adprior_bench.quality.ranking.head_features import head_features, live_priors
from adprior_bench.quality.ranking.impressions import SEED
from adprior_bench.quality.ranking.ranking_task import RankingTask
from adprior_build.head.clamp_in_graph import CLAMP
from adprior_build.head.logistic_fit import fit_recalibration
from adprior_build.head.variants import fit_variant
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.head import PriorHead
from adprior_runtime.terminal.progress import track

BASE: Final = "base"
SHIPPED: Final = "shipped_head"
"""The bundle's own head with the model's forecast; all other heads are fitted here."""

Matrix: TypeAlias = npt.NDArray[Any]
Forecasts: TypeAlias = Mapping[str, tuple[Matrix, Matrix]]
"""Probabilities [cases, advertisers] for the head's cases and for the test cases, by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingResult:
    """The rows of the test cases, with a logit from each ranker.

    Attributes:
        real: Name of the model's forecast.
        users: Each row's user id, [rows].
        cases: int64 [rows], positions of the test cases; each is a request.
        labels: float64 [rows], 0 or 1.
        logits: float64 [rows] by ranker: `BASE`, `REFERENCE`, `SHIPPED` if the bundle has a head,
            and each forecast.
        heads: All forms of each forecast's head, the reference first.
        recalibration: a and b.
        task: The task.
    """

    real: str
    users: npt.NDArray[np.str_]
    cases: npt.NDArray[np.int64]
    labels: Float64Array
    logits: Mapping[str, Float64Array]
    heads: Mapping[str, Sequence[HeadForm]]
    recalibration: tuple[float, float]
    task: RankingTask


def run_ranking(
    task: RankingTask,
    forecasts: Forecasts,
    advertisers: Advertisers,
    *,
    real: str,
    forecast_k: int = 20,
    shipped: PriorHead | None = None,
    seed: int = SEED,
) -> RankingResult:
    """Rank the test rows with and without each forecast and two falsifiers of the model's.

    ``forecasts`` are for the cases of the task. ``real`` is the name of the model's forecast;
    ``shipped`` is the bundle's own head.

    Raises:
        InvalidInputError: The users of the two groups overlap, or all rows of a group have the
            same label.
    """
    fitted, test = task.fitted, task.test
    _check(fitted.cases, test.cases, forecasts)
    _require_both_labels(fitted, test)
    forecasts = {**forecasts, **falsifiers(forecasts[real], (fitted.cases, test.cases), seed)}
    labels = fitted.impressions.labels
    slope, shift = fit_recalibration(fitted.logits, labels)
    offsets, reference = slope * fitted.logits + shift, slope * test.logits + shift
    heads, logits = {}, {BASE: test.logits, REFERENCE: reference}
    for name in track(forecasts, desc="heads, one for each forecast", unit="forecast"):
        fitted_features, test_features = (
            head_features(matrix, rows.impressions, advertisers, forecast_k)
            for matrix, rows in zip(forecasts[name], (fitted, test), strict=True)
        )
        heads[name] = compare_heads(fitted_features, fitted)
        form = best_head(heads[name])
        head = fit_variant(form.name, fitted_features, offsets, labels, l2=form.l2, clamp=CLAMP)
        logits[name] = apply_head(head, test_features, reference)
        if name == real and shipped is not None:
            adjusted = shipped.adjust(reference.astype(np.float32), live_priors(test_features))
            logits[SHIPPED] = adjusted.logits.astype(np.float64)
    owners = np.array([case.user.user_id for case in test.cases])
    return RankingResult(
        real=real,
        users=owners[test.impressions.cases],
        cases=test.impressions.cases,
        labels=test.impressions.labels,
        logits=logits,
        heads=heads,
        recalibration=(slope, shift),
        task=task,
    )


def _require_both_labels(*groups: RankedRows) -> None:
    for rows in groups:
        if len(np.unique(rows.impressions.labels)) < 2:
            raise InvalidInputError(
                f"{len(rows.cases)} cases give ranking rows of one label only; expected both"
            )


def _check(
    head_cases: Sequence[EncodedCase], test_cases: Sequence[EncodedCase], forecasts: Forecasts
) -> None:
    groups = [{case.user.user_id for case in cases} for cases in (head_cases, test_cases)]
    if both := groups[0] & groups[1]:
        raise InvalidInputError(f"{len(both)} users are in both groups; expected none")
    if taken := {BASE, REFERENCE, RANDOM, SHIPPED, SHUFFLED} & set(forecasts):
        raise InvalidInputError(f"forecast {min(taken)}: the name is taken")
