"""The probability of an advertiser: its names' and aliases' probabilities, summed.

All in logs, so that probabilities below what a double can hold still count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int64Array


class AliasSums(NamedTuple):
    """Advertisers with what their names add up to.

    Attributes:
        rows: int64 [advertisers], distinct, rising.
        log_probs: float64 [advertisers].
        counts: int64 [advertisers], how many names each sum has.
    """

    rows: Int64Array
    log_probs: npt.NDArray[np.float64]
    counts: Int64Array


def sum_aliases(rows: Int64Array, log_probs: npt.NDArray[np.float64]) -> AliasSums:
    """Sum the probabilities of each advertiser's names.

    Args:
        rows: int64 [names], each name's advertiser.
        log_probs: float64 [names]; -inf is a probability of 0.
    """
    by_row = np.argsort(rows, kind="stable")
    distinct, starts, counts = np.unique(rows[by_row], return_index=True, return_counts=True)
    if len(distinct) == 0:  # reduceat takes no empty list of starts
        return AliasSums(distinct, np.zeros(0), counts)
    return AliasSums(distinct, np.logaddexp.reduceat(log_probs[by_row], starts), counts)
