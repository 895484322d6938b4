"""What every baseline is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase, EncodedUser, Float64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """What may be learnt from.

    Attributes:
        users: Training users, their events before the cut only.
        cut: Days since 1970.
        advertisers: How many the catalogue has.
        categories: How many there are.
    """

    users: Sequence[EncodedUser]
    cut: int
    advertisers: int
    categories: int

    def events(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return user positions, advertiser rows and days of all events with an advertiser."""
        owners, rows, days = [], [], []
        for position, user in enumerate(self.users):
            known = user.rows >= 0
            owners.append(np.full(int(known.sum()), position, dtype=np.int32))
            rows.append(user.rows[known])
            days.append(user.days[known])
        return np.concatenate(owners), np.concatenate(rows), np.concatenate(days)


class Baseline(Protocol):
    """A fitted baseline."""

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """Return a probability of every advertiser of the catalogue: float64 [advertisers]."""
        ...


def normalised(scores: Float64Array) -> Float64Array:
    """Return scores of at least 0 divided by their sum."""
    total = scores.sum()
    return scores / total if total > 0 else scores


def blend(first: Float64Array, second: Float64Array, share: float) -> Float64Array:
    """Return a mixture: ``share`` of the second, the rest of the first.

    A distribution that is all 0 (nothing is known of a user) leaves the other alone.
    """
    if not first.any():
        return second
    if not second.any():
        return first
    mixed: Float64Array = (1 - share) * first + share * second
    return mixed
