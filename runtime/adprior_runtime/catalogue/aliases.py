"""The probability of an advertiser: the sum over its names and aliases.

All values are logs, so that probabilities too small for a double still count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int64Array


class AliasSums(NamedTuple):
    """The summed probability of each advertiser.

    Attributes:
        rows: int64 [advertisers], distinct, rising.
        log_probs: float64 [advertisers].
        counts: int64 [advertisers], the number of names in each sum.
    """

    rows: Int64Array
    log_probs: npt.NDArray[np.float64]
    counts: Int64Array


def sum_aliases(rows: Int64Array, log_probs: npt.NDArray[np.float64]) -> AliasSums:
    """Sum the probabilities of each advertiser's names.

    Args:
        rows: int64 [names], the advertiser of each name.
        log_probs: float64 [names]; -inf is a probability of 0.
    """
    by_row = np.argsort(rows, kind="stable")
    rising = rows[by_row]
    if len(rising) == 0:  # reduceat takes no empty list of starts
        return AliasSums(rising, np.zeros(0), rising)
    ends = np.append((rising[1:] != rising[:-1]).nonzero()[0], len(rising) - 1)
    starts = np.append(0, ends[:-1] + 1)
    sums = np.logaddexp.reduceat(log_probs[by_row], starts)
    return AliasSums(rising[ends], sums, ends - starts + 1)
