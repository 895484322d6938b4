"""The second stage: corrects a first ranker's logits from columns that it is given.

There are two forms: a logistic regression, and boosted trees. Both begin at the recalibrated
logits of the first ranker, so that a strong penalty, or few trees, leaves its ranking as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import lightgbm
import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import Float64Array
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.ranking import base_ranker
from adprior_build.head.logistic_fit import fit_logistic, fit_recalibration
from adprior_runtime.errors import InvalidInputError

Setting: TypeAlias = Mapping[str, float]
"""``l2`` of the logistic regression, or the number of ``trees``."""

SETTINGS: Final[Sequence[Setting]] = (
    {"l2": 30.0},
    {"l2": 300.0},
    {"trees": 30},
    {"trees": 100},
)
"""Tried for every forecast, and for the control."""

_TREES: Final[Mapping[str, Any]] = {**base_ranker.SETTINGS, "num_leaves": 7}
_MIN_ROWS_IN_LEAF: Final = 200
"""Upper limit; smaller if there are few rows."""

_Corrector: TypeAlias = Callable[[Float32Array], Float64Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackRows:
    """Candidates with what a second stage learns from.

    Attributes:
        columns: float32 [rows, columns], finite; a logistic regression takes them as they are, so
            they should not have long tails.
        logits: float64 [rows], the first ranker's.
        labels: float64 [rows], 0 or 1.
        folds: int64 [rows], the fold of the row's user.
        learnable: bool [rows], the rows to learn from: all positives, and all or some of the rest.
    """

    columns: Float32Array
    logits: Float64Array
    labels: Float64Array
    folds: npt.NDArray[np.int64]
    learnable: npt.NDArray[np.bool_]

    def chosen(self, rows: npt.NDArray[np.bool_]) -> StackRows:
        """Return some of the rows."""
        return StackRows(
            columns=self.columns[rows],
            logits=self.logits[rows],
            labels=self.labels[rows],
            folds=self.folds[rows],
            learnable=self.learnable[rows],
        )


class SecondStage:
    """A fitted second stage.

    Args:
        setting: One of `SETTINGS`.
        rows: The rows to learn from.
        threads: LightGBM's; the result does not depend on it.

    Raises:
        InvalidInputError: The rows have one label only.
    """

    def __init__(self, setting: Setting, rows: StackRows, *, threads: int) -> None:
        chosen = rows.learnable
        labels = rows.labels[chosen]
        if len(np.unique(labels)) < 2:
            raise InvalidInputError(
                f"{len(labels):,} rows to stack on have one label only, expected both: there are "
                "too few validation users"
            )
        # Learning from fewer negatives raises the odds by the same factor.
        others = rows.labels == 0
        self._kept = float(np.log(rows.learnable[others].mean()))
        logits, columns = rows.logits[chosen], rows.columns[chosen]
        self._slope, self._shift = fit_recalibration(logits, labels)
        offsets = self._slope * logits + self._shift
        if "l2" in setting:
            self._correct = _linear(columns, offsets, labels, setting["l2"])
        else:
            self._correct = _boosted(columns, offsets, labels, int(setting["trees"]), threads)

    def adjust(self, rows: StackRows) -> Float64Array:
        """Return the log-odds of each row: float64 [rows]."""
        base = self._slope * rows.logits + self._shift
        return base + self._correct(rows.columns) + self._kept


def setting_words(setting: Setting) -> str:
    """Return a setting for a table."""
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def cross_fit(setting: Setting, rows: StackRows, *, threads: int) -> Float64Array:
    """Return the logits of each row from a stage that learnt from the other folds' users.

    Raises:
        InvalidInputError: All positive rows are in one fold.
    """
    found = np.zeros(len(rows.labels))
    for fold in np.unique(rows.folds).tolist():
        here = rows.folds == fold
        stage = SecondStage(setting, rows.chosen(~here), threads=threads)
        found[here] = stage.adjust(rows.chosen(here))
    return found


def _linear(
    columns: Float32Array, offsets: Float64Array, labels: Float64Array, l2: float
) -> _Corrector:
    mean = columns.mean(axis=0, dtype=np.float64)
    scale = np.maximum(columns.std(axis=0, dtype=np.float64), 1e-6)
    weights, bias = fit_logistic((columns - mean) / scale, offsets, labels, l2)
    return lambda given: np.asarray((given - mean) / scale @ weights + bias, dtype=np.float64)


def _boosted(
    columns: Float32Array, offsets: Float64Array, labels: Float64Array, trees: int, threads: int
) -> _Corrector:
    limits = {"min_data_in_leaf": max(1, min(_MIN_ROWS_IN_LEAF, len(labels) // 100))}
    model = lightgbm.train(
        {**_TREES, **limits, "num_threads": threads},
        lightgbm.Dataset(columns, labels, init_score=offsets),
        num_boost_round=trees,
    )
    return lambda given: np.asarray(
        model.predict(given, raw_score=True, num_threads=threads), dtype=np.float64
    )
