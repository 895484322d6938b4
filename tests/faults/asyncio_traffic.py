"""The load of a ranking service on asyncio: one client, several tasks, one event loop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from typing import Self

from adprior_client import AsyncRankingClient, ClientConfig
from faults.traffic import Request, compare


class AsyncioTraffic:
    """Tasks that share one client, in a thread; a context manager that ends them.

    Args:
        config: The client's settings.
        requests: Sent in random order; live and with a forecast, half and half.
        tasks: Number of callers.
        users: Calls are made for this many user ids.
        period_s: Pause between a task's calls.

    Attributes:
        outcomes: Number of calls by outcome and reason.
        bundle_ids: The bundles that answered.
        discovered: How often the client's list of servers changed.
    """

    def __init__(
        self,
        config: ClientConfig,
        requests: list[Request],
        *,
        tasks: int = 4,
        users: int = 50,
        period_s: float = 0.05,
    ) -> None:
        self._config = config
        self._requests = requests
        self._tasks = tasks
        self._users = users
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.bundle_ids: set[str] = set()
        self.discovered = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    async def _run(self) -> None:
        async with AsyncRankingClient(self._config) as client:
            await asyncio.gather(*(self._call_on(client, seed) for seed in range(self._tasks)))
            self.discovered = client.discovery.changed

    async def _call_on(self, client: AsyncRankingClient, seed: int) -> None:
        draw = random.Random(seed)
        while not self._stop.is_set():
            request = draw.choice(self._requests)
            subject, expected = draw.choice(
                [(request.user, request.live), (request.forecast, request.stored)]
            )
            user_id = draw.randrange(self._users)
            try:
                ranking = await client.score(
                    subject, request.candidates, request.base, user_id=user_id
                )
                outcome, reason = compare(ranking, expected, request.base)
                self.bundle_ids.add(ranking.bundle_id)
            except Exception as error:  # noqa: BLE001  a call must never raise; record that it did
                outcome, reason = "raised", type(error).__name__
            self.outcomes[f"{outcome} {reason}"] += 1
            await asyncio.sleep(self._period_s * draw.uniform(0.5, 1.5))
