"""Two bundles side by side: the same user at both servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from adprior_client import Forecast
from adprior_explore.distance import distance
from adprior_explore.novelty import mark_new
from adprior_explore.side import Side
from adprior_explore.subject import Subject

OVERLAPS: Final = (5, 10, 20)
"""The lengths at which two lists are compared."""


async def compare(a: Side, b: Side, subject: Subject, k: int | None) -> dict[str, Any]:
    """Forecast one user at two servers.

    Args:
        a: The first server.
        b: The second server.
        subject: The user.
        k: How many advertisers; the first bundle's default if None.
    """
    start = time.perf_counter()
    k = k or a.default_k()
    first, second = await asyncio.gather(
        a.retrieval.forecast(subject.raw, k), b.retrieval.forecast(subject.raw, k)
    )
    a.note(first)
    b.note(second)
    return {
        "a": mark_new(first.advertisers, subject.document),
        "b": mark_new(second.advertisers, subject.document),
        "overlap_at": {str(n): overlap(first, second, n) for n in OVERLAPS if n <= k},
        "total_variation": distance(first, second),
        "exact": {"a": first.exact, "b": second.exact},
        "total_ms": 1e3 * (time.perf_counter() - start),
    }


def overlap(first: Forecast, second: Forecast, count: int) -> float:
    """Return the share of the first ``count`` advertisers that two forecasts have in common."""
    ids_a, ids_b = _ids(first)[:count], _ids(second)[:count]
    most = max(len(ids_a), len(ids_b))
    return len(set(ids_a) & set(ids_b)) / most if most else 1.0


def _ids(forecast: Forecast) -> Sequence[int]:
    return [item.advertiser_id for item in forecast.advertisers]
