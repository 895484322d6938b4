"""Intervals by a bootstrap over users: cases of one user are similar, so they are drawn together.

A statistic is carried as its *draws*: its value on the data, then its value in each resample. All
draws of one `UserBootstrap` come from the same resamples, so that functions of them are paired::

    estimate(bootstrap.mean(ours - theirs))         # a paired difference of per-case values
    estimate(variant.pr_auc / reference.pr_auc - 1)  # a relative gain
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import InvalidInputError

Draws: TypeAlias = npt.NDArray[np.float64]
"""float64 [resamples + 1]: the statistic itself, then the statistic in each resample."""

_INTERVAL: Final = (0.025, 0.975)
_BLOCK_ELEMENTS: Final = 4_000_000  # of float64: 32 MB at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and its 95 % interval; all three are NaN if there is nothing to measure."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Estimate) -> bool:
        """Return whether two intervals share a value."""
        return self.low <= other.high and other.low <= self.high


def estimate(draws: Draws, *, centred: bool = False) -> Estimate:
    """Return a statistic with its 95 % percentile interval.

    Resamples without the statistic (for example without a positive) are left out.

    Args:
        draws: The statistic, as `Draws`.
        centred: Shift the resamples so that their mean is the value, but not below 0. Needed for
            statistics that resampling biases, because a resample has fewer distinct users: distinct
            counts, sums of squares, sums of absolute differences. None of them can be negative.
    """
    value, resampled = float(draws[0]), draws[1:]
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return Estimate(value=np.nan, low=np.nan, high=np.nan)
    if centred:
        resampled = np.maximum(resampled - resampled.mean() + value, 0.0)
    low, high = np.quantile(resampled, _INTERVAL).tolist()
    return Estimate(value=value, low=low, high=high)


def divide(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> Draws:
    """Return ratios, NaN where the denominator is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


class UserBootstrap:
    """Resamples of users, each with all of its cases.

    Args:
        owners: [cases], the user of each case, or another unit that is drawn as a whole, such as a
            request.
        resamples: Number of resamples.
        seed: The same owners and seed give the same resamples.

    Raises:
        InvalidInputError: There are no cases.
    """

    def __init__(self, owners: npt.NDArray[Any], *, resamples: int = 1000, seed: int = 0) -> None:
        if not len(owners):
            raise InvalidInputError("no cases to resample, expected at least one")
        distinct, places = np.unique(owners, return_inverse=True)
        self.places: npt.NDArray[np.int64] = places.astype(np.int64).reshape(-1)
        self.users = len(distinct)
        self.resamples = resamples
        even = np.full(self.users, 1 / self.users)
        random = np.random.default_rng(seed)
        # The weight of each user, 1 in the first row; uint16, as users may be a million requests.
        self._counts = np.ones((resamples + 1, self.users), dtype=np.uint16)
        for row in range(1, resamples + 1):
            self._counts[row] = random.multinomial(self.users, even)

    def blocks(self, width: int) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the weights of all users, some draws at a time: float64 [draws, users].

        Args:
            width: Elements that the caller holds for each draw: the larger, the fewer draws.
        """
        step = max(1, _BLOCK_ELEMENTS // max(width, self.users))
        for start in range(0, self.resamples + 1, step):
            yield self._counts[start : start + step].astype(np.float64)

    def totals(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return sums over the drawn cases: [cases] or [cases, m] to [draws] or [draws, m]."""
        columns = values.reshape(len(values), -1)
        sums = np.stack(
            [np.bincount(self.places, column, minlength=self.users) for column in columns.T], axis=1
        )
        blocks = [counts @ sums for counts in self.blocks(columns.shape[1])]
        found: npt.NDArray[np.float64] = np.concatenate(blocks)
        return found[:, 0] if values.ndim == 1 else found

    def ratio(self, numerators: npt.NDArray[Any], denominators: npt.NDArray[Any]) -> Draws:
        """Return a ratio of sums over the drawn cases, NaN where the denominator is 0."""
        return divide(self.totals(numerators), self.totals(denominators))

    def mean(self, values: npt.NDArray[Any], chosen: npt.NDArray[np.bool_] | None = None) -> Draws:
        """Return a mean over all cases, or over ``chosen`` cases: values [cases] to [draws].

        All users are resampled, with chosen cases or without: their share is random too.
        """
        if chosen is None:
            return self.ratio(values, np.ones(len(values)))
        return self.ratio(np.where(chosen, values, 0.0), chosen)
