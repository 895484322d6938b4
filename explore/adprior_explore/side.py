"""One Triton server of the page, side ``a`` or ``b``: its clients, and whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from adprior_client import (
    Advertiser,
    AsyncRankingClient,
    AsyncRetrievalClient,
    BadAnswerError,
    ClientConfig,
    ClientError,
    Forecast,
    ForecastRequest,
    InvalidArgumentError,
    UnavailableError,
)
from adprior_client.server_probe import ServerProbe
from adprior_explore.server.problems import Problem, RefusedError, problem_of
from adprior_explore.turns import Turns
from adprior_runtime.contract import MAX_BATCH_SIZE
from adprior_runtime.text.json_text import to_json

WATCH_INTERVAL_S: Final = 1.0
"""Time between two looks at a server."""
_PATIENCE: Final = 6.0
"""A call of a batch, and the first forecast, may take this many times the usual deadline."""
_NEVER: Final = 1_000_000
"""Failures that open a circuit breaker: a person who tries again must reach the server."""
_BATCH: Final = "bulk"
"""The priority of batches: forecasts that somebody waits for come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known about a server.

    Attributes:
        ready: Whether it answers forecasts.
        bundle_id: The bundle that it serves; like the next two, None before the first answer.
        default_k: How many advertisers it forecasts by default.
        has_interests: Whether its bundle has interests.
        problem: Why it is not ready; None if it is.
    """

    ready: bool = False
    bundle_id: str | None = None
    default_k: int | None = None
    has_interests: bool | None = None
    problem: Problem | None = None


class Side:
    """A server with its clients; they belong to one event loop, and `close` ends them.

    Args:
        name: ``a`` or ``b``.
        config: Settings with one ``HOST:PORT``.

    Attributes:
        name: ``a`` or ``b``.
        url: The server's address.
        retrieval: Forecasts that somebody waits for.
        turns: Of the forecasts that follow a person's edits.
        ranking: Rankings.
        probe: Readiness, statistics, how contexts are read.
        standing: What is known about the server.
    """

    def __init__(self, name: str, config: ClientConfig) -> None:
        # This class watches the server itself.
        config = replace(config, fail_open=False, health_interval_s=0.0, breaker_failures=_NEVER)
        patient = replace(config, deadline_s=_PATIENCE * config.deadline_s, priority=_BATCH)
        self.name, self.url = name, config.urls[0]
        self.retrieval = AsyncRetrievalClient(config)
        self.turns = Turns()
        self.ranking = AsyncRankingClient(config)
        self._batch = AsyncRetrievalClient(patient)
        self.probe = ServerProbe(config)
        self.standing = Standing(problem=problem_of(UnavailableError(f"{self.url}: not asked yet")))
        self._names: dict[int, str] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start_watching(self) -> None:
        """Look at the server again and again, until `close`."""
        self._watcher = asyncio.create_task(self._watch(), name=f"adprior-side-{self.name}")

    async def close(self) -> None:
        """Cancel all calls and close the connections."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.turns.close()
        for client in (self.retrieval, self.ranking, self._batch, self.probe):
            await client.close()

    def default_k(self) -> int:
        """Return how many advertisers this server forecasts by default.

        Raises:
            UnavailableError: It has not answered yet.
        """
        if self.standing.default_k is None:
            reason = self.standing.problem.error if self.standing.problem else "starting"
            raise UnavailableError(reason)
        return self.standing.default_k

    def note_bundle(self, *bundle_ids: str) -> None:
        """Remember which bundle gave the answers to one question.

        Raises:
            RefusedError: They are of several bundles, so they do not belong together.
        """
        if any(bundle_id != self.standing.bundle_id for bundle_id in bundle_ids):
            self._names.clear()
            # The next look asks for the new bundle's settings.
            reason = UnavailableError(f"{self.url}: the server has another bundle since now")
            self.standing = Standing(problem=problem_of(reason))
        if len(set(bundle_ids)) > 1:
            raise RefusedError(
                HTTPStatus.CONFLICT,
                f"{self.url}: the server got another bundle meanwhile",
                "Ask again.",
            )

    def note(self, forecast: Forecast) -> None:
        """Remember a forecast's names, and that the server answered with this bundle."""
        self.note_bundle(forecast.bundle_id)
        self._names |= {item.advertiser_id: item.name for item in forecast.advertisers if item.name}

    def name_of(self, advertiser_id: int) -> str | None:
        """Return an advertiser's name; None if no forecast has shown it yet."""
        return self._names.get(advertiser_id)

    def with_names(self, advertisers: Iterable[Advertiser]) -> tuple[Advertiser, ...]:
        """Return advertisers with the names that are known here."""
        return tuple(
            replace(item, name=item.name or self._names.get(item.advertiser_id, ""))
            for item in advertisers
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the page's state."""
        standing = self.standing
        problem = standing.problem.to_json() if standing.problem is not None else {}
        return {
            "side": self.name,
            "url": self.url,
            "ready": standing.ready,
            "bundle_id": standing.bundle_id,
            "default_k": standing.default_k,
            "interests": standing.has_interests,
            "error": problem.get("error"),
            "what_to_do": problem.get("what_to_do"),
        }

    async def forecast_batch(self, requests: Sequence[ForecastRequest]) -> tuple[Forecast, ...]:
        """Return one bundle's forecasts, made at the lowest priority.

        Raises:
            RefusedError: The server got another bundle meanwhile.
            ClientError: A forecast failed.
        """
        found = tuple(await self._batch.forecast_many(requests, max_concurrency=MAX_BATCH_SIZE))
        self.note_bundle(*(forecast.bundle_id for forecast in found))
        return found

    async def _watch(self) -> None:
        while True:
            with suppress(ClientError):
                await self.look()
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def look(self) -> None:
        """Find out whether the server is ready, and at first what its bundle does by default.

        Raises:
            ClientError: It is not ready; `standing` says why.
        """
        try:
            if not await self.probe.is_ready():
                raise UnavailableError(f"{self.url}: the server does not report that it is ready")
            if not self.standing.ready:
                await self._learn()
        except ClientError as error:
            self.standing = replace(self.standing, ready=False, problem=problem_of(error))
            raise

    async def _learn(self) -> None:
        """Make a forecast for a user without a history; the first one of a server is slow."""
        try:
            reading = await self.probe.read_context(_nobody())
        except InvalidArgumentError as error:  # nothing is wrong with this context
            raise BadAnswerError(f"{self.url}: not the models of this version: {error}") from error
        known = self.standing
        if known.default_k is None or known.bundle_id != reading.bundle_id:
            self.standing = replace(self.standing, problem=_starting(self.url))
            forecast = await self._batch.forecast(_nobody(), interest_k=1)
            self._names.clear()
            known = Standing(
                bundle_id=forecast.bundle_id,
                default_k=len(forecast.advertisers),
                has_interests=bool(forecast.interests),
            )
        self.standing = replace(known, ready=True, problem=None)


def _starting(url: str) -> Problem:
    return Problem(
        status=HTTPStatus.BAD_GATEWAY,
        error=f"{url}: the first forecast runs",
        what_to_do="Wait a moment: the page continues by itself.",
    )


def _nobody() -> bytes:
    """Return the context of a user about whom nothing is known, today."""
    today = datetime.now(UTC).date().isoformat()
    return to_json({"profile": {}, "history": [], "as_of": today}).encode()
