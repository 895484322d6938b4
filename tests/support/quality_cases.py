"""Test cases of users made up for the evaluation's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, EncodedUser, encoded_cases
from adprior_bench.quality.intervals import Draws, UserBootstrap

DAY = 100


def case(
    user_id: str, past: Sequence[int], today: Sequence[int], *, covered: bool = True
) -> EncodedCase:
    """Return the case of a user who acted on ``past`` one day and on ``today`` the next."""
    rows = np.array([*past, *today], dtype=np.int32)
    user = EncodedUser(
        user_id=user_id,
        profile={},
        days=np.repeat(np.array([DAY - 1, DAY], dtype=np.int32), [len(past), len(today)]),
        rows=rows,
        categories=np.full(len(rows), -1, dtype=np.int32),
        covered=covered,
    )
    return next(encoded_cases([user], DAY))


def weighted_draws(
    bootstrap: UserBootstrap, measure: Callable[[npt.NDArray[np.float64]], float]
) -> Draws:
    """Return the draws of a statistic of the cases' weights, computed one resample at a time."""
    return np.array(
        [
            measure(counts[bootstrap.places])
            for block in bootstrap.blocks(len(bootstrap.places))
            for counts in block
        ]
    )
