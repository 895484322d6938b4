"""The view of one forecast: advertisers, certificate, use of the context, time by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from adprior_client import Forecast, InvalidArgumentError
from adprior_client.cli.context_use import ContextUse
from adprior_explore.certificate import Certificate
from adprior_explore.novelty import mark_new
from adprior_explore.side import Side
from adprior_explore.step_times import StepTimes, read_times
from adprior_explore.subject import Subject
from adprior_runtime.contract import MAX_TOP_K, ContextCount


async def show_forecast(
    side: Side, subject: Subject, k: int | None, interest_k: int | None
) -> dict[str, Any]:
    """Forecast a user at one server.

    Args:
        side: The server.
        subject: The user.
        k: How many advertisers to show; the bundle's default if None.
        interest_k: How many interests to forecast too, if the bundle has them.
    """
    start = time.perf_counter()
    shown = k or side.default_k()
    interests = interest_k if side.standing.has_interests else None
    answer = await side.turns.take(lambda: _ask(side, subject, shown, interests))
    found, times = answer.found, answer.times
    # Last, as the tokenizer counts this call too, perhaps after its answer.
    reading = await side.probe.read_context(subject.raw)
    side.note_bundle(*answer.bundle_ids, reading.bundle_id)
    side.note(found)
    certificate = Certificate.of(
        found,
        shown,
        reading.margin_nats,
        asked=answer.asked,
        asked_one_more=answer.asked_one_more,
    )
    return {
        "advertisers": mark_new(found.advertisers[:shown], subject.document),
        "certificate": certificate.to_json(),
        "bundle_id": found.bundle_id,
        "interests": [item.to_json() for item in found.interests],
        "context_use": _describe(reading.use),
        "steps": None if times is None else times.steps,
        "server_ms": None if times is None else times.total_ms,
        "total_ms": 1e3 * (time.perf_counter() - start),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A server's forecast of what is shown.

    Attributes:
        found: The forecast.
        asked: How many advertisers it was asked for.
        asked_one_more: Whether one more than is shown was asked for, by this call or one before.
        bundle_ids: The bundle of each call.
        times: How long the server took, for all calls.
    """

    found: Forecast
    asked: int
    asked_one_more: bool
    bundle_ids: Sequence[str]
    times: StepTimes | None


async def _ask(side: Side, subject: Subject, shown: int, interest_k: int | None) -> _Answer:
    """Ask for one advertiser more than is shown; `adprior_explore.certificate` says why."""
    read = side.probe.read_counters
    asked, before = min(shown + 1, MAX_TOP_K), await read()
    try:
        found = await side.retrieval.forecast(subject.raw, asked, interest_k=interest_k)
    except InvalidArgumentError:  # the bundle allows no more, which a model may have counted
        before = await read()
        asked = shown
        found = await side.retrieval.forecast(subject.raw, asked, interest_k=interest_k)
    asked_one_more = asked > shown
    bundle_ids = [found.bundle_id]
    if asked_one_more and not found.exact:
        alone = await side.retrieval.forecast(subject.raw, shown)
        found = replace(alone, interests=found.interests)
        bundle_ids.append(alone.bundle_id)
        asked = shown
    return _Answer(
        found=found,
        asked=asked,
        asked_one_more=asked_one_more,
        bundle_ids=bundle_ids,
        times=await read_times(before, read, retrievals=len(bundle_ids)),
    )


def _describe(use: ContextUse) -> dict[str, Any]:
    events = use[ContextCount.EVENTS]
    unused = use[ContextCount.AFTER_AS_OF] + use[ContextCount.OVER_BUDGET]
    return {"events": events, "used_events": events - unused, "text": use.describe()}
