"""The simulated base ranker: LightGBM on everything but the forecast.

It stands in for a production ranker, which learns from its own impressions: it is fitted on the
training users' days after the cut, from which the language model did not learn. Its features are
computed from the time before the cut, for each fold of users from the users of the other folds.

`SETTINGS` were tuned once on one log of purchases, by cross-validation over training users: five
settings (leaves 7, 15 or 31; rows per leaf 200, 500 or 1,000; l2 0 or 10; columns all or 0.6; rate
0.05 or 0.03) at 100, 200, 300 and 500 rounds. The log-losses were between 0.12489, which is the
setting below, and 0.12636: another data set hardly needs tuning of its own. A log with few
positives does need fewer rounds; see `BaseRanker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt

from adprior_bench.data.progress import boosting_bar
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.folds import case_folds, fold_of
from adprior_bench.quality.ranking.impressions import (
    CANDIDATES,
    SEED,
    Impressions,
    simulate_impressions,
)
from adprior_bench.quality.ranking.ranking_features import RankingFeatures
from adprior_bench.quality.study import Study
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

SETTINGS: Final[Mapping[str, Any]] = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.03,
    "lambda_l2": 10,
    "feature_fraction": 0.6,
    "verbosity": -1,
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS: Final = 300
_MIN_ROWS_IN_LEAF: Final = 1000
"""Upper limit; smaller if there are few rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedRows:
    """A simulated log with the base ranker's logits.

    Attributes:
        cases: The cases of the requests.
        impressions: The candidates.
        logits: float64 [rows].
    """

    cases: Sequence[EncodedCase]
    impressions: Impressions
    logits: Float64Array


class BaseRanker:
    """A binary LightGBM model of P(label) on `RankingFeatures`.

    Features are computed from training users before the cut, labels come from ``impressions`` of
    other ``cases`` of the same users. The model does not depend on ``threads``. With
    ``choose_rounds``, the number of rounds, at most `ROUNDS`, is chosen by cross-validation over
    the training users: with 166 positives, 300 rounds rank worse than a user's own counts.

    Raises:
        InvalidInputError: There are no impressions.
    """

    def __init__(
        self,
        training: Training,
        cases: Sequence[EncodedCase],
        impressions: Impressions,
        *,
        choose_rounds: bool = False,
        threads: int = 0,
    ) -> None:
        if len(impressions.rows) == 0:
            raise InvalidInputError(
                "the training users have no ranking request: the base ranker has nothing to learn "
                "from"
            )
        table = out_of_fold_table(training, cases, impressions)
        self._features = RankingFeatures(training)
        self._threads = threads
        labels = impressions.labels
        limits = {"min_data_in_leaf": max(1, min(_MIN_ROWS_IN_LEAF, len(labels) // 250))}
        settings = {**SETTINGS, **limits, "num_threads": threads}
        names = list(self._features.names)
        self.rounds: Final = (
            _best_rounds(table, labels, case_folds(cases)[impressions.cases], settings)
            if choose_rounds
            else ROUNDS
        )
        data = lightgbm.Dataset(table, labels, feature_name=names)
        with boosting_bar("base ranker, training", self.rounds) as callback:
            self._model = lightgbm.train(
                settings, data, num_boost_round=self.rounds, callbacks=[callback]
            )

    def logits(self, cases: Sequence[EncodedCase], impressions: Impressions) -> Float64Array:
        """Return the log-odds of each row of cases of other users: float64 [rows]."""
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


def rank_rows(
    study: Study,
    groups: Sequence[Sequence[EncodedCase]],
    *,
    seed: int = SEED,
    candidates: int = CANDIDATES,
    threads: int = 0,
) -> tuple[BaseRanker, list[RankedRows]]:
    """Fit the base ranker on training users; let it rank a simulated log of each group of cases."""

    def simulate(cases: Sequence[EncodedCase]) -> Impressions:
        return simulate_impressions(study.training, cases, seed=seed, candidates=candidates)

    ranker = BaseRanker(study.training, study.later, simulate(study.later), threads=threads)
    found = []
    for cases in groups:
        impressions = simulate(cases)
        logits = ranker.logits(cases, impressions)
        found.append(RankedRows(cases=cases, impressions=impressions, logits=logits))
    return ranker, found


def _best_rounds(
    table: Float64Array,
    labels: Float64Array,
    folds: npt.NDArray[np.int64],
    settings: Mapping[str, Any],
) -> int:
    """Return the number of rounds with the lowest cross-validated log-loss."""
    losses = np.zeros(ROUNDS)
    for fold in track(np.unique(folds).tolist(), desc="base ranker, rounds", unit="fold"):
        here = folds == fold
        if here.all():
            return ROUNDS
        found: dict[str, Any] = {}
        data = lightgbm.Dataset(table[~here], labels[~here])
        lightgbm.train(
            {**settings, "metric": "binary_logloss"},
            data,
            num_boost_round=ROUNDS,
            valid_sets=[data.create_valid(table[here], labels[here])],
            callbacks=[lightgbm.record_evaluation(found)],
        )
        losses += here.sum() * np.array(found["valid_0"]["binary_logloss"])
    return int(losses.argmin()) + 1


def out_of_fold_table(
    training: Training, cases: Sequence[EncodedCase], impressions: Impressions
) -> Float64Array:
    """Return training users' features, computed without the users of their own fold.

    Otherwise the features would contain the user's own events, unlike those of other users:
    float64 [rows, features].
    """
    owners = case_folds(cases)[impressions.cases]
    whole = RankingFeatures(training)
    found = np.zeros((len(impressions.rows), len(whole.names)))
    for fold in track(np.unique(owners).tolist(), desc="base ranker, features", unit="fold"):
        others = [user for user in training.users if fold_of(user.user_id) != fold]
        if not any((user.rows >= 0).any() for user in others):
            others = list(training.users)  # a few users, all in one fold
        features = RankingFeatures(replace(training, users=others), keys=whole.profile_keys)
        here = owners == fold
        found[here] = features.table(cases, impressions.chosen(here))
    return found
