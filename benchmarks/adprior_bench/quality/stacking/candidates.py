"""The candidates that a stack ranks, with the first ranker's score and its signals.

A case's candidates are those of the LightGBM ranker: the user's own advertisers and the highest of
each signal. A stack with a forecast also has the forecast's highest: it is one more signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.boosted import FEATURES, POOL, Signals, candidate_rows
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.ranking.folds import case_folds
from adprior_bench.quality.ranking.head_features import head_features
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_bench.quality.stacking.second_stage import StackRows
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.terminal.progress import track

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_NEGATIVES: Final = 60
"""About as many candidates without an action are learnt from in each case."""
_SHARES: Final = [
    FEATURES.index(name)
    for name in (
        "own_share", "popularity", "popularity_90", "segment", "user_neighbours",
        "item_neighbours", "category_affinity",
    )
]  # fmt: skip
_LEAST_SHARE: Final = 1e-7
_OWN_COUNT: Final = FEATURES.index("own_count")
_SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackCandidates:
    """The candidates of all cases, those of every forecast's stack together.

    Attributes:
        impressions: The candidates; positions are those of the cases.
        logits: float64 [rows], logarithms of the first ranker's probabilities. An advertiser that
            it has no score for gets the lowest one of the case.
        signals: float32 [rows, features], logarithms of `FEATURES`.
        folds: int64 [rows], the folds of the users.
        learnable: bool [rows], see `StackRows`.
        pools: bool [rows] for each forecast, the candidates of its stack.
        shared: bool [rows], the candidates of every stack.
    """

    impressions: Impressions
    logits: Float64Array
    signals: Float32Array
    folds: npt.NDArray[np.int64]
    learnable: BoolArray
    pools: Mapping[str, BoolArray]
    shared: BoolArray

    @classmethod
    def of(
        cls,
        cases: Sequence[EncodedCase],
        signals: Signals,
        ranker: Float32Array,
        forecasts: Mapping[str, Float32Array],
    ) -> StackCandidates:
        """Collect candidates.

        Args:
            cases: The cases.
            signals: Those of the first ranker.
            ranker: float32 [cases, advertisers], the first ranker's probabilities.
            forecasts: The forecasts to stack, float32 [cases, advertisers] each.
        """
        random = np.random.default_rng(_SEED)
        parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        for place, case in enumerate(track(cases, desc="stack, candidates", unit="case")):
            features = signals.of(case)
            shared = candidate_rows(features, POOL)
            firsts = {name: _first(matrix[place]) for name, matrix in forecasts.items()}
            rows = np.unique(np.concatenate([shared, *firsts.values()]))
            probabilities = np.maximum(ranker[place], np.finfo(np.float32).tiny).astype(np.float64)
            floor = probabilities[shared].min()
            labels = np.isin(rows, case.targets)
            draws = random.random(len(features))  # the control's do not depend on forecasts
            parts.append(
                (
                    np.full(len(rows), place),
                    rows.astype(np.int32),
                    labels.astype(np.float64),
                    np.log(np.maximum(probabilities[rows], floor)),
                    _logarithms(features[rows]),
                    labels | (draws[rows] < _NEGATIVES / len(shared)),
                    np.isin(rows, shared),
                    np.stack([np.isin(rows, first) for first in firsts.values()], axis=-1)
                    if firsts
                    else np.zeros((len(rows), 0), dtype=np.bool_),
                )
            )
        owners, rows, labels, logits, logs, learnable, shared, pools = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return cls(
            impressions=Impressions(cases=owners, rows=rows, labels=labels),
            logits=logits,
            signals=logs,
            folds=case_folds(cases)[owners],
            learnable=learnable,
            pools={name: shared | pools[:, place] for place, name in enumerate(forecasts)},
            shared=shared,
        )

    def rows(
        self,
        forecast: str | None,
        probabilities: Float32Array | None,
        advertisers: Advertisers,
        forecast_k: int,
        further: Float32Array | None = None,
    ) -> tuple[Impressions, StackRows]:
        """Return the candidates of one stack.

        The columns are the signals, the first ranker's score, whether the advertiser is new to the
        user, and with a forecast the prior head's features, once for all and once for new ones; so
        is a further column.

        Args:
            forecast: The forecast's name; None for the control without one.
            probabilities: float32 [cases, advertisers], the forecast.
            advertisers: The catalogue.
            forecast_k: The number of advertisers in a forecast.
            further: float32 [cases, advertisers], one more column; None without.
        """
        chosen = self.shared if forecast is None else self.pools[forecast]
        impressions, logits = self.impressions.chosen(chosen), self.logits[chosen]
        signals = self.signals[chosen]
        is_new = (signals[:, [_OWN_COUNT]] == 0).astype(np.float32)
        columns = [signals, logits[:, np.newaxis].astype(np.float32), is_new]
        if probabilities is not None:
            features = head_features(probabilities, impressions, advertisers, forecast_k)
            columns += [features, features * is_new]
        if further is not None:
            column = further[impressions.cases, impressions.rows][:, np.newaxis]
            columns += [column, column * is_new]
        return impressions, StackRows(
            columns=np.concatenate(columns, axis=1),
            logits=logits,
            labels=impressions.labels,
            folds=self.folds[chosen],
            learnable=self.learnable[chosen],
        )


def _first(probabilities: Float32Array) -> npt.NDArray[np.int64]:
    pool = min(POOL, len(probabilities) - 1)
    return np.argpartition(-probabilities, pool)[:pool]


def _logarithms(features: Float64Array) -> Float32Array:
    """Return the logarithms of shares, and of 1 + the other features."""
    found = np.log1p(features)
    found[:, _SHARES] = np.log(features[:, _SHARES] + _LEAST_SHARE)
    return found.astype(np.float32)
