"""The largest few of many numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def positions_of_largest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ``count`` largest values, or of all if fewer, in no order.

    The values are split into ``count`` groups. At least one value of each group reaches the
    smallest of the groups' maxima. So only the few values that reach it need to be partitioned.
    """
    if len(values) <= count:
        return np.arange(len(values))
    rounds = len(values) // count
    bar = values[: rounds * count].reshape(rounds, count).max(axis=0).min()
    places = (values >= bar).nonzero()[0]
    largest = np.argpartition(values[places], -count)[-count:]
    found: npt.NDArray[np.int64] = places[largest]
    return found
