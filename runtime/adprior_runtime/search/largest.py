"""The largest few of many numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def positions_of_largest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return where the ``count`` largest values are, or all where there are fewer, in no order.

    The values are dealt into ``count`` hands, and the worst of the hands' bests is a bar that so
    many values reach, one of each hand at least. What lies below it is none of the largest: few
    are left to be partitioned.
    """
    if len(values) <= count:
        return np.arange(len(values))
    rounds = len(values) // count
    bar = values[: rounds * count].reshape(rounds, count).max(axis=0).min()
    places = (values >= bar).nonzero()[0]
    largest = np.argpartition(values[places], -count)[-count:]
    found: npt.NDArray[np.int64] = places[largest]
    return found
