"""Which parts of a context carry its forecast: the user is forecast again without each part."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from adprior_client import Forecast, ForecastRequest
from adprior_client.user_context import CheckedContext, user_to_json
from adprior_explore.distance import changes, distance
from adprior_explore.novelty import mark_new
from adprior_explore.side import Side
from adprior_explore.subject import Subject
from adprior_explore.variants import Variant, describe_skipped, leave_out

_SHOWN_CHANGES: Final = 5


async def explain(side: Side, subject: Subject, k: int | None) -> dict[str, Any]:
    """Forecast a user, and the same user without each part, in one batch.

    Args:
        side: The server.
        subject: The user.
        k: How many advertisers each forecast has; the bundle's default if None.
    """
    start = time.perf_counter()
    variants = leave_out(subject.document)
    # Seconds for a long history: other requests are answered meanwhile.
    contexts = [subject.raw, *await asyncio.to_thread(_check, variants)]
    places = {raw: place for place, raw in enumerate(dict.fromkeys(contexts))}
    requests = [ForecastRequest(user=raw, k=k or side.default_k()) for raw in places]
    found = await side.forecast_batch(requests)
    base = found[places[subject.raw]]
    side.note(base)
    return {
        "base": mark_new(base.advertisers, subject.document),
        "without": [
            _row(variant, base, found[places[raw]])
            for variant, raw in zip(variants, contexts[1:], strict=True)
        ],
        "runs": len(requests),
        "skipped": describe_skipped(subject.document),
        "total_ms": 1e3 * (time.perf_counter() - start),
    }


def _check(variants: Sequence[Variant]) -> list[CheckedContext]:
    return [CheckedContext(user_to_json(variant.document)) for variant in variants]


def _row(variant: Variant, base: Forecast, without: Forecast) -> dict[str, Any]:
    shown = [change for change in changes(base, without) if change.size][:_SHOWN_CHANGES]
    return {
        "kind": variant.kind,
        "label": variant.label,
        "event_index": variant.event_index,
        "advertiser": variant.advertiser,
        "events": variant.events,
        "shift": distance(base, without),
        "changes": [change.to_json() for change in shown],
    }
