"""Rankings at random times, by real clients, while a zone is lost and comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
from tqdm import tqdm

from adprior_bench.clients.instant_server import BASE_LOGIT
from adprior_bench.open_loop.loop import CallRecord, run_open_loop
from adprior_bench.zones.zone_processes import Zone
from adprior_client import Advertiser, AsyncRankingClient, ClientConfig, Forecast
from adprior_client.types import Source

_USERS: Final = 1_000_000
_FIRST_CALLS: Final = 10
"""Calls of each client for each zone before the measurement."""
_FORECAST: Final = Forecast(
    advertisers=(Advertiser(advertiser_id=0, name="", log_prob=-1.0),),
    exact=True,
    missing_mass=0.6,
    bundle_id="0123456789ab",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When things happen, in seconds from the start.

    Attributes:
        lost_s: A zone is lost.
        back_s: It is started again.
        end_s: No call begins after it.
    """

    lost_s: float
    back_s: float
    end_s: float


async def run_traffic(
    zones: Sequence[Zone],
    config: ClientConfig,
    timetable: Timetable,
    *,
    clients: int,
    rate: float,
    candidates: int,
    fault: str,
    seed: int,
) -> list[CallRecord]:
    """Call at the times of a Poisson process, and return every call.

    Args:
        zones: The zones; the first one is lost.
        config: The clients' settings.
        timetable: When that happens.
        clients: Number of clients, each with its own connections and circuit breakers, as services
            on several machines have.
        rate: Calls a second, of all clients together.
        candidates: Candidates of each ranking.
        fault: How the zone is lost, see `zone_processes.FAULTS`.
        seed: Of the times and users.
    """
    ids, logits = np.arange(candidates), np.full(candidates, BASE_LOGIT)
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(AsyncRankingClient(config)) for _ in range(clients)
        ]
        await asyncio.gather(  # each client connects to every server before the clock starts
            *(
                client.score(_FORECAST, ids, logits, user_id=user)
                for client in opened
                for user in range(_FIRST_CALLS * len(zones))
            )
        )
        bar = stack.enter_context(
            tqdm(total=round(timetable.end_s), unit="s", leave=False, disable=None)
        )
        start = time.monotonic()

        async def call(draw: random.Random) -> str:
            bar.update(int(time.monotonic() - start) - bar.n)
            client, user = opened[draw.randrange(clients)], draw.randrange(_USERS)
            ranking = await client.score(_FORECAST, ids, logits, user_id=user)
            return "" if ranking.source is Source.CALLER else str(ranking.reason)

        faults = asyncio.create_task(_lose_and_bring_back(zones[0], timetable, fault))
        records = await run_open_loop(
            call,
            rate=rate,
            seed=seed,
            start=start,
            is_over=lambda due_s: due_s >= timetable.end_s,
        )
        await faults
    return records


async def _lose_and_bring_back(zone: Zone, timetable: Timetable, fault: str) -> None:
    await asyncio.sleep(timetable.lost_s)
    zone.lose(fault)
    await asyncio.sleep(timetable.back_s - timetable.lost_s)
    await asyncio.to_thread(zone.bring_back, fault)
