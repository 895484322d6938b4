"""Makes calls at the times of a Poisson process, and records each of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call.

    Attributes:
        began_s: When it began, in seconds from the start.
        late_s: How much later than it was due: the clients' own machine is too slow.
        took_s: How long it took.
        reason: Why its answer is not the expected one; empty if it is.
    """

    began_s: float
    late_s: float
    took_s: float
    reason: str


async def run_open_loop(
    call: Callable[[random.Random], Awaitable[str]],
    *,
    rate: float,
    seed: int,
    start: float,
    is_over: Callable[[float], bool],
) -> list[CallRecord]:
    """Make calls until the end, and return all of them, in the order in which they began.

    A call never waits for the calls before it, so a slow server meets the same load as a fast one.

    Args:
        call: Makes one call, chosen with the generator that it gets; returns why its answer is not
            the expected one, empty if it is.
        rate: Mean calls a second.
        seed: Of the times and of the choices.
        start: The start, in seconds of the monotonic clock.
        is_over: Called with the seconds from the start at which the next call is due; true ends
            the loop.
    """
    times, draw = random.Random(seed), random.Random(seed + 1)  # noqa: S311
    records: list[CallRecord] = []

    async def record(due: float) -> None:
        began = time.monotonic()
        reason = await call(draw)
        took_s = time.monotonic() - began
        records.append(CallRecord(began - start, began - due, took_s, reason))

    due = start
    async with asyncio.TaskGroup() as group:
        while not is_over((due := due + times.expovariate(rate)) - start):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(record(due))
    return sorted(records, key=lambda each: each.began_s)
