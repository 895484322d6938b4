"""Two bundles side by side: the same user at both servers."""

from __future__ import annotations

import asyncio
import math
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
    ids_a, ids_b = _ids(first), _ids(second)
    return {
        "a": mark_new(first.advertisers, subject.document),
        "b": mark_new(second.advertisers, subject.document),
        "bundle_ids": {"a": first.bundle_id, "b": second.bundle_id},
        "only_a": [item for item in ids_a if item not in ids_b],
        "only_b": [item for item in ids_b if item not in ids_a],
        "moved": _moved(first, second),
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


def _moved(first: Forecast, second: Forecast) -> list[dict[str, Any]]:
    """Return the advertisers of both lists, the greatest change of the log-probability first."""
    places = {item.advertiser_id: (rank, item) for rank, item in enumerate(second.advertisers, 1)}
    moved = []
    for rank, item in enumerate(first.advertisers, 1):
        if item.advertiser_id not in places:
            continue
        other_rank, other = places[item.advertiser_id]
        ratio = other.log_prob - item.log_prob
        row = {"advertiser_id": item.advertiser_id, "name": item.name}
        moved.append(row | {"rank_a": rank, "rank_b": other_rank, "log_ratio": ratio})
    return sorted(moved, key=lambda row: -math.fabs(row["log_ratio"]))
