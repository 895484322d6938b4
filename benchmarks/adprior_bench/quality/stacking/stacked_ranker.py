"""The base ranker of a ranking log, corrected by a second stage with a forecast and without one.

This is the ranker that a production system would train with the forecast among its features. A
prior head (`adprior_build.head`) sees only the forecast; the second stage also sees the base
ranker's features, and can trust the forecast more where these say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.ranking.base_ranker import RankedRows
from adprior_bench.quality.ranking.falsifiers import falsifiers
from adprior_bench.quality.ranking.folds import case_folds
from adprior_bench.quality.ranking.head_features import head_features
from adprior_bench.quality.ranking.impressions import SEED
from adprior_bench.quality.ranking.ranking_features import RankingFeatures
from adprior_bench.quality.ranking.ranking_task import RankingTask
from adprior_bench.quality.stacking.second_stage import (
    SETTINGS,
    SecondStage,
    Setting,
    StackRows,
    cross_fit,
)
from adprior_build.head.logistic_fit import log_losses
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.terminal.progress import track

WITHOUT: Final = "none"
"""The control: the second stage without a forecast."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackedRanker:
    """The second stage with one forecast.

    Attributes:
        losses: Cross-fitted log-loss by setting, in nats a row, in the order of `SETTINGS`.
        logits: float64 [rows], the log-odds of the test rows.
    """

    losses: Sequence[float]
    logits: Float64Array

    @property
    def setting(self) -> Setting:
        """The chosen setting: the first one with the lowest log-loss."""
        return SETTINGS[int(np.argmin(self.losses))]


def stack_ranker(
    training: Training,
    task: RankingTask,
    forecasts: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    advertisers: Advertisers,
    *,
    real: str,
    forecast_k: int,
    threads: int,
) -> dict[str, StackedRanker]:
    """Fit the control, and a second stage with each forecast, on the task's fitted rows.

    The false forecasts made from the ``real`` one are added.

    Args:
        training: Gives the features, as for the simulated base ranker.
        task: The rows. If those to learn from are the test rows, the logits are cross-fitted.
        forecasts: Probabilities [cases, advertisers] for the fitted and the test cases, by name.
        real: Name of the model's forecast.
        advertisers: The catalogue.
        forecast_k: The number of advertisers in a forecast.
        threads: CPU threads of LightGBM; results do not depend on it.

    Raises:
        InvalidInputError: All positives of the fitted rows are in one fold.
    """
    cases = task.fitted.cases, task.test.cases
    forecasts = {**forecasts, **falsifiers(forecasts[real], cases, SEED)}
    features = RankingFeatures(training)
    fitted = task.fitted, _logarithms(features, task.fitted)
    is_same = task.test is task.fitted
    groups = [fitted, fitted if is_same else (task.test, _logarithms(features, task.test))]
    found = {}
    for name in track([WITHOUT, *forecasts], desc="ranking stacks", unit="forecast"):
        learnt, judged = (
            _rows(
                rows,
                columns
                if name == WITHOUT
                else np.concatenate(
                    [
                        columns,
                        head_features(
                            forecasts[name][place], rows.impressions, advertisers, forecast_k
                        ),
                    ],
                    axis=1,
                ),
            )
            for place, (rows, columns) in enumerate(groups)
        )
        tried = [cross_fit(setting, learnt, threads=threads) for setting in SETTINGS]
        losses = [float(log_losses(logits, learnt.labels).mean()) for logits in tried]
        best = int(np.argmin(losses))
        if is_same:
            logits = tried[best]
        else:
            logits = SecondStage(SETTINGS[best], learnt, threads=threads).adjust(judged)
        found[name] = StackedRanker(losses=losses, logits=logits)
    return found


def _logarithms(features: RankingFeatures, rows: RankedRows) -> Float32Array:
    """Return the logarithms of 1 + each feature, and the base ranker's logit."""
    logarithms = np.log1p(features.table(rows.cases, rows.impressions))
    return np.column_stack([logarithms, rows.logits]).astype(np.float32)


def _rows(rows: RankedRows, columns: Float32Array) -> StackRows:
    return StackRows(
        columns=columns,
        logits=rows.logits,
        labels=rows.impressions.labels,
        folds=case_folds(rows.cases)[rows.impressions.cases],
        learnable=np.ones(len(rows.logits), dtype=np.bool_),
    )
