"""Test cases of users made up for the evaluation's tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adprior_bench.quality.histories import EncodedCase, EncodedUser, encoded_cases

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
