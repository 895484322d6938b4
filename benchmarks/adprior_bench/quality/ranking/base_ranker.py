"""The simulated base ranker: LightGBM on everything known but the forecast.

It stands for a production ranker, which has learnt from its own impressions: it is fitted on the
training users' days after the cut, when the language model's training was over. Its features come
from the time before the cut, and for each fold of users from the users of the other folds, as they
will for users never seen.

Tuned once on one log of purchases, by cross-validation over training users: five settings
(leaves 7, 15 or 31; least rows a leaf 200, 500 or 1,000; l2 0 or 10; columns all or 0.6; rate 0.05
or 0.03) at 100, 200, 300 and 500 rounds: 25 fits, 5 minutes of one core. The log-losses lay between
0.12489, which is the setting below, and 0.12636: another data set hardly needs its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import lightgbm
import numpy as np

from adprior_bench.data.progress import boosting_bar
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.folds import FOLDS, case_folds, fold_of
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_bench.quality.ranking.ranking_features import RankingFeatures
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

SETTINGS: Final[Mapping[str, Any]] = {
    "num_leaves": 31,
    "learning_rate": 0.03,
    "lambda_l2": 10,
    "feature_fraction": 0.6,
}
ROUNDS: Final = 300
_LEAST_ROWS: Final = 1000
"""In a leaf, fewer where there are few rows."""
_SEED: Final = 7


class BaseRanker:
    """A binary LightGBM model of P(label) over `RankingFeatures`.

    Args:
        training: Where features are counted: training users before the cut.
        later: The same users' cases from the cut on.
        impressions: Made of these cases.
        threads: LightGBM's; 0 takes what there is. The model is the same.

    Raises:
        InvalidInputError: There are no impressions.
    """

    def __init__(
        self,
        training: Training,
        later: Sequence[EncodedCase],
        impressions: Impressions,
        *,
        threads: int = 0,
    ) -> None:
        if len(impressions.rows) == 0:
            raise InvalidInputError(
                "no training user acts on an advertiser of the catalogue from the cut on: "
                "the base ranker has nothing to learn from"
            )
        table = out_of_fold_table(training, later, impressions)
        self._features = RankingFeatures(training)
        self._model = _train(table, impressions.labels, self._features.names, threads)
        self._threads = threads

    def logits(self, cases: Sequence[EncodedCase], impressions: Impressions) -> Float64Array:
        """Return the model's log-odds of each row: float64 [rows].

        Args:
            cases: Of users that it was not fitted on.
            impressions: Made of these cases.
        """
        if len(impressions.rows) == 0:
            return np.zeros(0)
        table = self._features.table(cases, impressions)
        found = self._model.predict(table, raw_score=True, num_threads=self._threads)
        return np.asarray(found, dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the gain."""
        gains = self._model.feature_importance("gain")
        shares = (gains / max(float(gains.sum()), 1e-12)).tolist()
        return dict(zip(self._features.names, shares, strict=True))


def out_of_fold_table(
    training: Training, later: Sequence[EncodedCase], impressions: Impressions
) -> Float64Array:
    """Return training users' features, counted on the users of the other folds.

    A table that knew the user's own past by other ways than their history would flatter itself:
    float64 [rows, features].
    """
    owners = case_folds(later)[impressions.cases]
    keys = RankingFeatures(training)
    found = np.zeros((len(impressions.rows), len(keys.names)))
    for fold in track(np.unique(owners).tolist(), desc="base ranker, features", unit="fold"):
        others = [user for user in training.users if fold_of(user.user_id, FOLDS) != fold]
        if not any((user.rows >= 0).any() for user in others):
            others = list(training.users)  # a handful of users, all in one fold
        features = RankingFeatures(replace(training, users=others), keys=keys.profile_keys)
        here = owners == fold
        part = Impressions(
            cases=impressions.cases[here],
            rows=impressions.rows[here],
            labels=impressions.labels[here],
        )
        found[here] = features.table(later, part)
    return found


def _train(
    table: Float64Array, labels: Float64Array, names: Sequence[str], threads: int
) -> lightgbm.Booster:
    settings = {
        "objective": "binary",
        "verbosity": -1,
        "seed": _SEED,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "min_data_in_leaf": max(1, min(_LEAST_ROWS, len(labels) // 250)),
    }
    data = lightgbm.Dataset(table, labels, feature_name=list(names))
    with boosting_bar("base ranker, training", ROUNDS) as callback:
        return lightgbm.train(
            settings | dict(SETTINGS), data, num_boost_round=ROUNDS, callbacks=[callback]
        )
