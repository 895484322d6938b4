"""What a search has found, and how probable the rest is.

Compiled functions; `adprior_runtime.search.prefixes` calls them.
"""

from __future__ import annotations

import math

import numpy as np

from adprior_runtime.compiled import Float64Array, Int8Array, Int64Array, compiled

OPEN = 0
FOUND = 1
EXCLUDED = 2
"""These as in `adprior_runtime.search.expansion`; a test compares them."""


@compiled
def names_found(scores: Float64Array, kinds: Int8Array, count: int) -> Int64Array:
    """Return the positions of the names found, most probable first.

    Of equal ones, the first comes first.

    Args:
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored].
        count: How many names are found.
    """
    found, size = np.empty(count, np.int64), 0
    for position, kind in enumerate(kinds):
        if kind == FOUND:
            found[size] = position
            size += 1
    return found[np.argsort(-scores[found], kind="mergesort")]


@compiled
def log_mass(scores: Float64Array, kinds: Int8Array, others: float) -> float:
    """Return the log of the probability of all that are neither names found nor expanded.

    Args:
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored].
        others: The log of a probability to add, -inf for none.
    """
    highest = others
    for position, kind in enumerate(kinds):
        if kind in (OPEN, EXCLUDED):
            highest = max(highest, scores[position])
    if highest == -np.inf:
        return highest
    total, lost = math.exp(others - highest), 0.0
    for position, kind in enumerate(kinds):
        if kind in (OPEN, EXCLUDED):
            added = math.exp(scores[position] - highest) - lost
            lost = (total + added - total) - added  # what rounding adds to the sum (Kahan)
            total += added
    return highest + math.log(total)
