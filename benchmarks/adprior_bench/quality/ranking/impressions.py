"""A simulated impression log: what an ad system might have shown on each day of a user.

The data say what users did, but not what they were shown. Each case becomes one request: the day's
advertisers (label 1) among candidates without an action on that day (label 0). The negatives are
drawn as an ad system might choose them: popular advertisers, advertisers of the user's past, and
advertisers of the user's categories. Say "simulated" wherever a figure comes from such a log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.affinity import CategoryAffinity
from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.baselines.popularity import Popularity
from adprior_bench.quality.histories import EncodedCase, Float64Array, Int32Array
from adprior_runtime.terminal.progress import track

Int64Array: TypeAlias = npt.NDArray[np.int64]

CANDIDATES: Final = 50
"""Candidates of a request."""
OWN_SHARE: Final = 0.25
"""Share of negatives from the user's own past, drawn by their counts."""
SIMILAR_SHARE: Final = 0.25
"""Share of negatives from the user's categories; all other negatives are drawn by popularity."""
SEED: Final = 20_220_701


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Impressions:
    """One row for each candidate, sorted by request and by the catalogue's row.

    Attributes:
        cases: int64 [rows], the position of the request's case.
        rows: int32 [rows], the candidate's row of the catalogue.
        labels: float64 [rows], 1 for an advertiser of the day, else 0.
    """

    cases: Int64Array
    rows: Int32Array
    labels: Float64Array

    def requests(self) -> Iterator[tuple[int, slice]]:
        """Yield the case and the rows of each request."""
        cases, starts = np.unique(self.cases, return_index=True)
        stops = [*starts[1:].tolist(), len(self.rows)]
        for case, start, stop in zip(cases.tolist(), starts.tolist(), stops, strict=True):
            yield case, slice(start, stop)

    def chosen(self, rows: npt.NDArray[np.bool_]) -> Impressions:
        """Return some of the rows."""
        return Impressions(cases=self.cases[rows], rows=self.rows[rows], labels=self.labels[rows])


def simulate_impressions(
    training: Training,
    cases: Sequence[EncodedCase],
    *,
    seed: int = SEED,
    candidates: int = CANDIDATES,
) -> Impressions:
    """Make a request of each case with an advertiser of the catalogue.

    A request depends only on its own case, the seed and the training users, not on other cases.

    ``training`` gives popularity and the categories' advertisers. A request has fewer candidates
    if the catalogue is smaller, and no negatives on a day with as many advertisers.
    """
    popular = Popularity(training).shares
    affinity = CategoryAffinity(training)
    owners, found, labels = [], [], []
    shown = track(cases, desc="simulated requests", unit="case", leave=False)
    for position, case in enumerate(shown):
        if len(case.targets) == 0:
            continue
        negatives = _negatives(case, popular, affinity, candidates, _generator(case, seed))
        rows = np.concatenate([case.targets, negatives]).astype(np.int32)
        order = np.argsort(rows)  # the order must not reveal the labels
        owners.append(np.full(len(rows), position))
        found.append(rows[order])
        labels.append((order < len(case.targets)).astype(np.float64))
    return Impressions(
        cases=np.concatenate([np.zeros(0, dtype=np.int64), *owners]),
        rows=np.concatenate([np.zeros(0, dtype=np.int32), *found]),
        labels=np.concatenate([np.zeros(0), *labels]),
    )


def _negatives(
    case: EncodedCase,
    popular: Float64Array,
    affinity: CategoryAffinity,
    candidates: int,
    random: np.random.Generator,
) -> Int64Array:
    count = max(0, min(candidates, len(popular)) - len(case.targets))
    own = np.bincount(case.past[0], minlength=len(popular)).astype(np.float64)
    free = np.ones(len(popular), dtype=np.bool_)
    free[case.targets] = False
    drawn = [
        _draw(own, free, round(OWN_SHARE * count), random),
        _draw(affinity.probabilities(case), free, round(SIMILAR_SHARE * count), random),
    ]
    drawn.append(_draw(popular, free, count - sum(map(len, drawn)), random))
    return np.concatenate(drawn)


def _draw(
    weights: Float64Array, free: npt.NDArray[np.bool_], count: int, random: np.random.Generator
) -> Int64Array:
    """Draw free advertisers without replacement (Gumbel top-k), and mark them as taken."""
    possible = np.flatnonzero(free & (weights > 0))
    keys = np.log(weights[possible]) + random.gumbel(size=len(possible))
    chosen: Int64Array = possible[np.argsort(-keys)[:count]]
    free[chosen] = False
    return chosen


def _generator(case: EncodedCase, seed: int) -> np.random.Generator:
    name = hashlib.sha256(case.user.user_id.encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(name, "big"), case.day])
