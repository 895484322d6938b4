"""Measures how far two bundles agree on many users: overlap, first choice, distance, drift.

The drift is the population stability index of `adprior_runtime.forecast.drift`. Its bins are tenths
of the mean forecast of side a over these users, in place of the popularity in training, which the
page does not have. Each forecast has the same weight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_bench.quality.intervals import UserBootstrap, estimate
from adprior_client import Forecast, ForecastRequest
from adprior_explore.comparison import OVERLAPS, overlap
from adprior_explore.distance import distance
from adprior_explore.side import Side
from adprior_explore.subject import Subject
from adprior_runtime.forecast.drift import (
    POPULARITY_BINS,
    PopularityBins,
    stability_index,
)

_PRIOR_FORECASTS: Final = 1.0
"""Each side counts this many forecasts more, spread evenly over the bins: no bin is empty."""


async def measure_agreement(
    a: Side, b: Side, labelled: Sequence[tuple[str, Subject]], k: int | None
) -> dict[str, Any]:
    """Forecast users at two servers, in one batch at each.

    Args:
        a: The first server.
        b: The second server.
        labelled: At least one user, each with a label.
        k: How many advertisers; the first bundle's default if None.
    """
    start = time.perf_counter()
    k = k or a.default_k()
    requests = [ForecastRequest(user=subject.raw, k=k) for _, subject in labelled]
    first, second = await asyncio.gather(*(side.forecast_batch(requests) for side in (a, b)))
    pairs = list(zip(first, second, strict=True))
    overlaps = {count: [overlap(*pair, count) for pair in pairs] for count in OVERLAPS}
    distances = [distance(*pair) for pair in pairs]
    return {
        "users": len(pairs),
        "overlap_at": {str(n): _mean(values) for n, values in overlaps.items() if n <= k},
        "same_first": _mean([float(_first(x) == _first(y)) for x, y in pairs]),
        "drift": drift(first, second),
        "total_variation": _mean(distances),
        "per_user": [
            {
                "label": label,
                "overlap": overlap(x, y, k),
                "total_variation": distance(x, y),
                "first_a": _first(x),
                "first_b": _first(y),
            }
            for (label, _), (x, y) in zip(labelled, pairs, strict=True)
        ],
        "total_ms": 1e3 * (time.perf_counter() - start),
    }


def drift(first: Sequence[Forecast], second: Sequence[Forecast]) -> float | None:
    """Return the index of the second forecasts against the first; None without advertisers."""
    listed = [item.advertiser_id for forecast in (*first, *second) for item in forecast.advertisers]
    rows = {advertiser_id: row for row, advertiser_id in enumerate(dict.fromkeys(listed))}
    total = np.zeros(len(rows))
    for forecast in first:
        total[_rows(forecast, rows)] += np.exp(_log_probs(forecast))
    if not total.any():
        return None
    with np.errstate(divide="ignore"):
        bins = PopularityBins(np.log(total).astype(np.float32))
    prior = np.full(POPULARITY_BINS, _PRIOR_FORECASTS / POPULARITY_BINS)
    reference, other = (
        sum((bins.split(_rows(each, rows), _log_probs(each)) for each in side), start=prior)
        for side in (first, second)
    )
    return stability_index(other, reference)


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    """Return a mean over users with its 95 % interval; no interval for one user."""
    found = estimate(UserBootstrap(np.arange(len(values))).mean(np.asarray(values, np.float64)))
    if len(values) < 2:
        return {"mean": found.value, "low": None, "high": None}
    return {"mean": found.value, "low": found.low, "high": found.high}


def _first(forecast: Forecast) -> str | None:
    return forecast.advertisers[0].name if forecast.advertisers else None


def _rows(forecast: Forecast, rows: dict[int, int]) -> NDArray[np.int64]:
    return np.array([rows[item.advertiser_id] for item in forecast.advertisers], dtype=np.int64)


def _log_probs(forecast: Forecast) -> NDArray[np.float32]:
    return np.array([item.log_prob for item in forecast.advertisers], dtype=np.float32)
