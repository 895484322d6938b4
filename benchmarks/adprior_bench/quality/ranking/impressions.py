"""A simulated impression log: what an ad system might have shown on each day of a user.

The data are what users did alone; nothing says what else was shown. So each case becomes one
request: the day's advertisers (label 1) among candidates that were not acted on that day (label 0),
drawn from what an ad system would show: what is popular, what the user knows already, and what fits
the categories that the user acts on. Say "simulated" wherever a figure comes from such a log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
"""In each request."""

OWN_SHARE: Final = 0.25
"""Of the negatives: advertisers of the user's own past, drawn by how often each came."""

SIMILAR_SHARE: Final = 0.25
"""Of the negatives: advertisers of the user's categories, drawn by their shares in these.

The rest, and what these two cannot supply, is drawn by popularity."""

SEED: Final = 20_220_701
"""Of the quality report's log."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Impressions:
    """One row a candidate, by request and in it by the catalogue's row.

    Attributes:
        cases: int64 [rows], the request's position in the cases it was made of.
        rows: int32 [rows], the candidate's row of the catalogue; each once a request.
        labels: float64 [rows], 1 for an advertiser of the day, else 0.
    """

    cases: Int64Array
    rows: Int32Array
    labels: Float64Array


def simulate_impressions(
    training: Training,
    cases: Sequence[EncodedCase],
    *,
    seed: int = SEED,
    candidates: int = CANDIDATES,
) -> Impressions:
    """Make a request of each case with an advertiser of the catalogue.

    A request depends on its own case, the seed and the training users alone: neither the order of
    the cases nor other cases change it.

    Args:
        training: Where popularity and the categories' advertisers are counted.
        cases: User days; those without an advertiser of the catalogue make no request.
        seed: Of all draws.
        candidates: In each request, fewer where the catalogue has no more; a day with as many
            advertisers has no negatives.
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
        order = np.argsort(rows)  # a request's order must not tell its labels
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
    wanted = max(0, min(candidates, len(popular)) - len(case.targets))
    own = np.bincount(case.past[0], minlength=len(popular)).astype(np.float64)
    similar = affinity.probabilities(case)
    free = np.ones(len(popular), dtype=np.bool_)
    free[case.targets] = False
    drawn = [
        _draw(own, free, round(OWN_SHARE * wanted), random),
        _draw(similar, free, round(SIMILAR_SHARE * wanted), random),
    ]
    drawn.append(_draw(popular, free, wanted - sum(map(len, drawn)), random))
    return np.concatenate(drawn)


def _draw(
    weights: Float64Array, free: npt.NDArray[np.bool_], count: int, random: np.random.Generator
) -> Int64Array:
    """Draw without replacement among what is free, and take it: the Gumbel top-k trick."""
    possible = np.flatnonzero(free & (weights > 0))
    keys = np.log(weights[possible]) + random.gumbel(size=len(possible))
    chosen: Int64Array = possible[np.argsort(-keys)[:count]]
    free[chosen] = False
    return chosen


def _generator(case: EncodedCase, seed: int) -> np.random.Generator:
    name = hashlib.sha256(case.user.user_id.encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(name, "big"), case.day])
