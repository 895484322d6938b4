"""Ranking services under an even load, in a thread: they follow the list of servers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from adprior_bench.open_loop.loop import CallRecord, run_open_loop
from adprior_bench.rolling.bundle_answers import BundleAnswers
from adprior_bench.server.workload import UserRequest
from adprior_client import AsyncRankingClient, ClientConfig
from adprior_client.results import Ranking

MIXED: Final = "mixed_bundles"
"""The reason of an answer that is not the one of a single bundle."""
_USERS: Final = 1_000_000
_FIRST_CALLS: Final = 20
"""Calls of each client for each server before the measurement."""
_TOLERANCE: Final = 1e-3
"""Logits of the same request differ by rounding if others are computed beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The calls.

    Attributes:
        clients: Clients, each with its own connections, as services on several machines have.
        servers: Servers that they find at first.
        rate: Calls a second, of all clients together.
        live_share: Share of the calls that ask for a live forecast; the others bring one.
        seed: Of the calls' times, users and requests.
    """

    clients: int
    servers: int
    rate: float
    live_share: float
    seed: int


class Callers:
    """Clients that call until the end of the block, and check each answer.

    Args:
        config: The clients' settings.
        load: The calls.
        requests: The requests to choose from.
        old: The answers of the bundle that the servers have at first.
        new: Those of the bundle that they will have.

    Attributes:
        start: The start, in seconds of the monotonic clock.
        records: Every call, once the block has ended.
        answered: Calls by the bundle that answered.
    """

    def __init__(
        self,
        config: ClientConfig,
        load: Load,
        requests: Sequence[UserRequest],
        *,
        old: BundleAnswers,
        new: BundleAnswers,
    ) -> None:
        self.start = 0.0
        self.records: list[CallRecord] = []
        self.answered: Counter[str] = Counter()
        self._config = config
        self._load = load
        self._requests = requests
        self._new = new
        self._held = old
        self._known = {each.bundle_id: each for each in (old, new)}
        self._stopping = threading.Event()
        self._started: Future[None] = Future()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adprior-callers")

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._run)
        try:
            self._started.result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._end()
        if kind is None:
            self.records = self._running.result()

    def hold_new_forecasts(self) -> None:
        """Let later calls bring forecasts of the new bundle, as after ``adprior publish``."""
        self._held = self._new

    def _end(self) -> None:
        self._stopping.set()
        self._pool.shutdown()

    def _run(self) -> list[CallRecord]:
        try:
            return asyncio.run(self._call_on())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            raise

    async def _call_on(self) -> list[CallRecord]:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(AsyncRankingClient(self._config))
                for _ in range(self._load.clients)
            ]

            async def call(draw: random.Random) -> str:
                return await self._call(draw.choice(clients), draw)

            draw = random.Random(self._load.seed)  # noqa: S311
            for _ in range(_FIRST_CALLS * self._load.servers):
                await asyncio.gather(*(self._call(client, draw) for client in clients))
            self.answered.clear()
            self.start = time.monotonic()
            self._started.set_result(None)
            return await run_open_loop(
                call,
                rate=self._load.rate,
                seed=self._load.seed,
                start=self.start,
                is_over=lambda _: self._stopping.is_set(),
            )

    async def _call(self, client: AsyncRankingClient, draw: random.Random) -> str:
        at = draw.randrange(len(self._requests))
        is_live = draw.random() < self._load.live_share
        request = self._requests[at]
        ranking = await client.score(
            request.context.encode() if is_live else self._held.forecasts[at],
            request.candidate_ids,
            request.base_logits,
            user_id=draw.randrange(_USERS),
        )
        if ranking.reason is not None:
            return str(ranking.reason)
        self.answered[ranking.bundle_id] += 1
        return "" if self._is_of_one_bundle(ranking, at, is_live=is_live) else MIXED

    def _is_of_one_bundle(self, ranking: Ranking, at: int, *, is_live: bool) -> bool:
        """Compare an answer with that of its bundle: bundle ids alone could be wrong."""
        answers = self._known.get(ranking.bundle_id)
        if answers is None or ranking.forecast is None:
            return False
        expected = (answers.live if is_live else answers.held)[at]
        return ranking.forecast.bundle_id == answers.bundle_id and np.allclose(
            ranking.logits, expected, atol=_TOLERANCE
        )
