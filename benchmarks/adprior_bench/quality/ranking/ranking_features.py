"""The features of the simulated base ranker for a user and a candidate, without a forecast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from adprior_bench.quality.baselines.affinity import CategoryAffinity
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.baselines.boosted import FEATURES, Signals
from adprior_bench.quality.baselines.popularity import SegmentPopularity
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_runtime.terminal.progress import track

_MAX_VALUES: Final = 100
"""A profile key with more values gives no segments."""
_KEPT: Final = [place for place, name in enumerate(FEATURES) if name != "segment"]
"""All but the baseline's single segment: here each profile key has a column."""
_SEGMENT_STRENGTH: Final = 300.0
_RECENT_DAYS: Final = 60
_ACTIVITY: Final = (
    "days_since_any",
    "user_events_30",
    "user_events_365",
    "basket_size",
    "last_basket_size",
    "days_between_baskets",
    "distinct_advertisers",
    "largest_share",
)
_LONG_AGO: Final = 10_000.0


class RankingFeatures:
    """Features from the training users' events before the cut.

    They are the features of the LightGBM baseline; the user's recent categories; the advertiser's
    return rate; the popularity in the user's segment of each profile key, relative to all users;
    and the user's activity. The sharpness of a forecast shows whether a user is active; without the
    activity features, that would count as knowledge of advertisers.

    The profile ``keys`` are those of the training users by default.
    """

    def __init__(self, training: Training, keys: Sequence[str] | None = None) -> None:
        self._signals = Signals(training, segment=None)
        self._affinity = CategoryAffinity(training)
        self._returns = _return_rates(training)
        self.profile_keys: Final = tuple(_profile_keys(training) if keys is None else keys)
        self._segments = {
            key: SegmentPopularity(training, key=key, strength=_SEGMENT_STRENGTH)
            for key in self.profile_keys
        }
        self.names: Final = (
            *(FEATURES[place] for place in _KEPT),
            "recent_affinity",
            "return_rate",
            *_ACTIVITY,
            *(f"profile_{place}" for place in range(len(self.profile_keys))),
        )

    def table(self, cases: Sequence[EncodedCase], impressions: Impressions) -> Float64Array:
        """Return float64 [rows, features] of the cases' impressions, columns as in ``names``."""
        found = np.zeros((len(impressions.rows), len(self.names)))
        requests = list(impressions.requests())
        for case, part in track(requests, desc="ranking features", unit="request", leave=False):
            found[part] = self._of(cases[case])[impressions.rows[part]]
        return found

    def _of(self, case: EncodedCase) -> Float64Array:
        signals = self._signals.of(case)
        popular = signals[:, FEATURES.index("popularity")]
        columns = [
            self._affinity.probabilities(case, recent_days=_RECENT_DAYS),
            self._returns,
            *(np.full(len(popular), value) for value in _activity(case)),
            *(segment.probabilities(case) / popular for segment in self._segments.values()),
        ]
        return np.column_stack([signals[:, _KEPT], *columns])


def _activity(case: EncodedCase) -> list[float]:
    """Return the values of `_ACTIVITY` before the case's day."""
    rows, days = case.past
    if len(rows) == 0:
        return [_LONG_AGO, 0.0, 0.0, 0.0, 0.0, _LONG_AGO, 0.0, 0.0]
    visits = np.unique(np.stack([days, rows], axis=1), axis=0)
    dates, sizes = np.unique(visits[:, 0], return_counts=True)
    counts = np.unique(rows, return_counts=True)[1]
    span = float(dates[-1] - dates[0])
    return [
        float(case.day - days[-1]),
        float((days >= case.day - 30).sum()),
        float((days >= case.day - 365).sum()),
        float(sizes.mean()),
        float(sizes[-1]),
        span / (len(dates) - 1) if len(dates) > 1 else _LONG_AGO,
        float(len(counts)),
        float(counts.max() / counts.sum()),
    ]


def _profile_keys(training: Training) -> list[str]:
    values: dict[str, set[str]] = {}
    for user in training.users:
        for key, value in user.profile.items():
            values.setdefault(key, set()).add(value)
    return sorted(key for key, found in values.items() if 1 < len(found) <= _MAX_VALUES)


def _return_rates(training: Training) -> Float64Array:
    """Return the share of each advertiser's users who came back, smoothed towards the mean."""
    owners, rows, days = training.events()
    visits = np.unique(np.stack([rows, owners, days], axis=1), axis=0)
    pairs, counts = np.unique(visits[:, :2], axis=0, return_counts=True)
    users = np.bincount(pairs[:, 0], minlength=training.advertisers)
    back = np.bincount(pairs[:, 0], counts > 1, minlength=training.advertisers)
    rates: Float64Array = (back + 10 * back.sum() / users.sum()) / (users + 10)
    return rates
