"""Compares the canary's counters with the stable servers', each figure with an interval.

Errors and certificates are shares of requests: Newcombe's interval of a difference of two shares,
from Wilson's intervals (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10). Times and
drift: a percentile bootstrap over the looks at the counters, the same looks for both groups.
All of them treat requests as independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap

from adprior_client.rollout.metrics_page import BINS, TIME_BOUNDS_S, TIMES, Counts, Field

LEAST_LOOKS: Final = 8
"""With fewer looks, a bootstrap over them says too little."""
MOST_LOOKS: Final = 128
"""Of more looks, neighbours are added together: they bound the bootstrap's time and memory."""
_RESAMPLES: Final = 2000
_SEED: Final = 20_261
TAIL: Final = 0.95
"""The quantile of the searches' times that is compared."""
_LEAST_BIN_SHARE: Final = 0.001
"""Smaller shares of a bin are raised to this, as in the alert's rule."""
_SEARCHES: Final = TIMES.stop - 1
"""The place of all searches: those of at most infinite time."""
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of both groups, and how they compare; NaN where it is not known.

    Attributes:
        stable: The stable servers' figure.
        canary: The canary's.
        compared: Their difference, ratio or index.
        low: The lower end of its interval.
        high: The upper end.
    """

    stable: float
    canary: float
    compared: float
    low: float
    high: float


class Looks:
    """What both groups counted between looks at their metrics: float64 [looks, fields] each.

    At most `MOST_LOOKS` rows are kept. Then each two neighbours become one, and later looks are
    added to the last row until it covers as many looks as the others.
    """

    def __init__(self) -> None:
        self._stable: list[Counts] = []
        self._canary: list[Counts] = []
        self._width = 1
        self._missing = 0  # looks that the last row does not cover yet

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._stable)

    def add(self, stable: Counts, canary: Counts) -> None:
        """Add what was counted since the look before."""
        if self._missing:
            self._stable[-1] = self._stable[-1] + stable
            self._canary[-1] = self._canary[-1] + canary
            self._missing -= 1
            return
        if len(self) == MOST_LOOKS:
            self._stable, self._canary = _pairs(self._stable), _pairs(self._canary)
            self._width *= 2
        self._stable.append(stable)
        self._canary.append(canary)
        self._missing = self._width - 1

    @property
    def stable(self) -> _Floats:
        """The stable servers' counts."""
        return np.array(self._stable)

    @property
    def canary(self) -> _Floats:
        """The canary's counts."""
        return np.array(self._canary)

    def requests(self) -> tuple[int, int]:
        """Return the well-formed requests of the stable servers and of the canary."""
        return _requests(self.stable.sum(0))[1], _requests(self.canary.sum(0))[1]


def _pairs(rows: list[Counts]) -> list[Counts]:
    return [one + two for one, two in zip(rows[::2], rows[1::2], strict=True)]


def compare_errors(looks: Looks, level: float) -> Figure:
    """Compare the shares of well-formed requests without an answer; the difference."""
    return _difference(_requests(looks.stable.sum(0)), _requests(looks.canary.sum(0)), level)


def compare_certificates(looks: Looks, level: float) -> Figure:
    """Compare the shares of forecasts with a certificate; the difference."""
    return _difference(_exact(looks.stable.sum(0)), _exact(looks.canary.sum(0)), level)


def compare_times(looks: Looks, level: float) -> Figure:
    """Compare the mean times of an answer, in milliseconds; the ratio."""
    return _resampled(looks, level, Field.ANSWERED, _ratio_of(_mean_ms), _mean_ms)


def compare_tails(looks: Looks, level: float) -> Figure:
    """Compare the 95th percentiles of the searches' times, in milliseconds; the ratio."""
    return _resampled(looks, level, _SEARCHES, _ratio_of(_tail_ms), _tail_ms)


def compare_drift(looks: Looks, level: float) -> Figure:
    """Compare the forecasts' popularity bins; the population stability index of both groups."""
    return _resampled(looks, level, Field.FORECASTS, _drift, lambda _: math.nan)


def have_times(looks: Looks) -> bool:
    """Return whether both groups count the times of their searches; TensorRT-LLM does not."""
    return bool(min(each.sum(0)[_SEARCHES] for each in (looks.stable, looks.canary)) > 0)


def _requests(counts: Counts) -> tuple[int, int]:
    """Return the failed and all well-formed requests; Triton counts refused ones as failed."""
    failed = max(0.0, counts[Field.FAILED] - counts[Field.INVALID])
    return round(failed), round(failed + counts[Field.ANSWERED])


def _exact(counts: Counts) -> tuple[int, int]:
    return round(counts[Field.EXACT]), round(counts[Field.FORECASTS])


def _difference(stable: tuple[int, int], canary: tuple[int, int], level: float) -> Figure:
    if not stable[1] or not canary[1]:
        return Figure(
            stable=_share(stable), canary=_share(canary), compared=math.nan, low=-1.0, high=1.0
        )
    (p, p_low, p_high), (q, q_low, q_high) = (_wilson(*each, level) for each in (canary, stable))
    return Figure(
        stable=q,
        canary=p,
        compared=p - q,
        low=p - q - math.hypot(p - p_low, q_high - q),
        high=p - q + math.hypot(p_high - p, q - q_low),
    )


def _share(counted: tuple[int, int]) -> float:
    return counted[0] / counted[1] if counted[1] else math.nan


def _wilson(count: int, total: int, level: float) -> tuple[float, float, float]:
    found = binomtest(count, total).proportion_ci(level, method="wilson")
    return count / total, float(found.low), float(found.high)


def _resampled(
    looks: Looks,
    level: float,
    needed: int,
    statistic: Callable[[_Floats, _Floats], Any],
    of_group: Callable[[_Floats], Any],
) -> Figure:
    """Compare the looks in which both groups counted what is needed."""
    counts = looks.stable, looks.canary
    is_used = np.minimum(counts[0][:, needed], counts[1][:, needed]) > 0
    counts = counts[0][is_used], counts[1][is_used]
    compared, stable, canary, low, high = (math.nan,) * 5
    if is_used.any():
        stable, canary = (float(of_group(each.sum(0))) for each in counts)
        compared = float(statistic(*(each.sum(0) for each in counts)))
    if is_used.sum() >= LEAST_LOOKS:

        def of_looks(chosen: npt.NDArray[np.intp], axis: int = -1) -> Any:  # noqa: ARG001  the last
            times = _times_chosen(chosen)
            return statistic(*(times @ each for each in counts))

        found = bootstrap(
            (np.arange(is_used.sum()),),
            of_looks,
            n_resamples=_RESAMPLES,
            confidence_level=level,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return Figure(stable=stable, canary=canary, compared=compared, low=low, high=high)


def _times_chosen(chosen: npt.NDArray[np.intp]) -> _Floats:
    """Return how often each resample has each look: [..., looks], as ``chosen``.

    A product with the looks' counts is then the sum of the chosen ones, without a copy of them.
    """
    looks = chosen.shape[-1]
    rows = chosen.reshape(-1, looks)
    places = rows + looks * np.arange(len(rows))[:, np.newaxis]
    times = np.bincount(places.ravel(), minlength=rows.size)
    return times.reshape(chosen.shape).astype(np.float64)


def _mean_ms(counts: _Floats) -> Any:
    return counts[..., Field.DURATION_US] / counts[..., Field.ANSWERED] / 1e3


def _tail_ms(counts: _Floats) -> Any:
    """Return the quantile, interpolated in its bucket as Prometheus does."""
    below = counts[..., TIMES]
    wanted = TAIL * below[..., -1:]
    at = (below < wanted).sum(-1, keepdims=True)
    bounds = np.array([0.0, *TIME_BOUNDS_S])
    bounds[-1] = bounds[-2]  # the last bucket has no upper bound: the quantile is at least this
    padded = np.concatenate([np.zeros_like(wanted), below], axis=-1)
    start, stop = (np.take_along_axis(padded, at + end, axis=-1) for end in (0, 1))
    lower, upper = bounds[at], bounds[at + 1]
    return 1e3 * (lower + (upper - lower) * (wanted - start) / (stop - start))[..., 0]


def _ratio_of(of_group: Callable[[_Floats], Any]) -> Callable[[_Floats, _Floats], Any]:
    return lambda stable, canary: of_group(canary) / of_group(stable)


def _drift(stable: _Floats, canary: _Floats) -> Any:
    q, p = (_bin_shares(each[..., BINS]) for each in (stable, canary))
    return ((p - q) * np.log(p / q)).sum(-1)


def _bin_shares(bins: _Floats) -> Any:
    return np.maximum(bins / bins.sum(-1, keepdims=True), _LEAST_BIN_SHARE)
