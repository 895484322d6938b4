"""What an engine tells of the tokens after a prompt: the most probable ones, and the others' sum.

Names begin with thousands of tokens, and a search seldom needs more than a hundred of them. So only
those travel from a GPU, and only those stand in the search's table. The others are read if a
search needs them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from adprior_runtime.compiled import (
    Float32Array,
    Float64Array,
    Int64Array,
    compiled,
    part_of_compiled,
)

MOST_RANKED: Final = 128
"""How many tokens `RankedTokens` holds: enough for a beam of 32 and two rounds after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTokens:
    """The log-probabilities of the tokens that were asked for.

    No other token is more probable than one that is held. NaN counts as the most probable, so that
    who reads the held ones finds it.

    Attributes:
        asked: How many tokens were asked for.
        places: int64 [held], rising: where the held ones are among those that were asked for. All
            are held if `MOST_RANKED` or fewer were asked for.
        log_probs: float32 [held], theirs.
        others_log_mass: Log of the sum of the others' probabilities; -inf if there are no others.
        read_all: Returns the log-probabilities of all, float32 [asked].
    """

    asked: int
    places: Int64Array
    log_probs: Float32Array
    others_log_mass: float
    read_all: Callable[[], Float32Array]

    @classmethod
    def of(cls, log_probs: Float32Array) -> Self:
        """Rank log-probabilities that are on the host: float32 [asked]."""
        asked = len(log_probs)
        places, others_log_mass = np.arange(min(asked, MOST_RANKED)), -np.inf
        if asked > MOST_RANKED:
            given = np.ascontiguousarray(log_probs, dtype=np.float32)
            places, others = _rank(given, MOST_RANKED)
            others_log_mass = _log_sum(others)
        return cls(
            asked=asked,
            places=places,
            log_probs=log_probs[places],
            others_log_mass=others_log_mass,
            read_all=lambda: log_probs,
        )


@part_of_compiled
def _key(value: float) -> float:
    return np.inf if np.isnan(value) else value


@compiled
def _rank(log_probs: Float32Array, held: int) -> tuple[Int64Array, Float64Array]:
    """Return the places of the largest values, rising, and the other values.

    Of equal ones, the first are taken. The other values are float64 [n], -inf for those taken.

    Args:
        log_probs: float32 [n].
        held: How many to take, 1 to n.
    """
    heap = [_key(value) for value in log_probs[:held]]  # the smallest one first
    heapq.heapify(heap)
    for value in log_probs[held:]:
        if not value <= heap[0]:  # also NaN
            heapq.heapreplace(heap, _key(value))
    least, ties = heap[0], 0
    for value in heap:
        ties += value == least
    places, others, count = np.empty(held, np.int64), np.empty(len(log_probs)), 0
    for place, value in enumerate(log_probs):
        others[place] = value
        key = _key(value)
        if key > least or (key == least and ties > 0):
            ties -= key == least
            places[count], others[place] = place, -np.inf
            count += 1
    return places, others


def _log_sum(log_probs: Float64Array) -> float:
    """Return the log of the sum of probabilities."""
    highest = log_probs.max()
    if not np.isfinite(highest):  # infinity minus infinity is no number
        return float(highest)
    return float(highest + np.log(np.exp(log_probs - highest).sum()))
