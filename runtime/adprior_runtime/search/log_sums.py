"""Sums of probabilities, taken and given as logs: even what no double can hold counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Float64Array = npt.NDArray[np.float64]


def log_sums(values: _Float64Array, starts: npt.NDArray[np.int64]) -> _Float64Array:
    """Return the log of the sum of each run of values.

    Args:
        values: float64 [n], logs; -inf is a probability of 0.
        starts: int64 [runs], rising, where each run begins; the last one ends with the values.
    """
    if len(starts) == 0:
        return np.zeros(0)
    sums: _Float64Array = np.logaddexp.reduceat(values, starts)
    return sums


def log_cumulative_sums(values: _Float64Array, count: int) -> _Float64Array:
    """Return logs of the sums of the 0, 1, 2 ... ``count`` largest values.

    Args:
        values: float64 [n], logs in any order; where they are fewer than ``count``, the rest is 0.
        count: How many at most.

    Returns:
        float64 [count + 1], rising.
    """
    largest = np.full(count + 1, -np.inf)
    top = -np.sort(-values)[:count]
    largest[1 : 1 + len(top)] = top
    sums: _Float64Array = np.logaddexp.accumulate(largest)
    return sums
