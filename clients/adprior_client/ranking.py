"""Ranking: the ranker's logits with a calibrated prior added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adprior_client._call.asyncio_driver import AsyncioClient
from adprior_client._call.blocking_driver import BlockingClient
from adprior_client._call.scoring import Scoring
from adprior_client.requests import ScoreRequest
from adprior_client.results import Forecast, Ranking
from adprior_client.types import Ids, Numbers, User, UserId


class RankingClient(BlockingClient):
    """Adds priors to users' candidates; see `Client` for how it is made."""

    def score(
        self,
        user_or_forecast: User | Mapping[str, Any] | bytes | Forecast,
        candidates: Ids,
        base_logits: Numbers,
        *,
        user_id: UserId | None = None,
        treatment: bool = True,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Ranking:
        """Return the candidates, in the order given, with adjusted logits.

        A user costs one run of the LLM. A forecast, from a retrieval call moments ago or from a
        bulk run, costs none. No candidates, no call.

        Args:
            user_or_forecast: The user (or their context, as a dict or JSON bytes), or a forecast
                of theirs; a forecast may be empty.
            candidates: Advertiser id of each candidate; the same one may come several times.
            base_logits: The ranker's logit of each candidate; sent as FP32.
            user_id: Keeps the user on one server, and finds their stored forecast.
            treatment: False asks nothing and changes nothing: a user of a control group.
            deadline_s: Of this call, the configuration's where none is given.
            request_id: Of this call, a random one where none is given.

        Returns:
            The ranking; with the base logits, to the last bit, and a ``reason`` where no answer
            came in time or a bad one did.

        Raises:
            InvalidArgumentError: An argument is wrong; found before anything is sent.
            ClientError: The server failed, and ``ClientConfig.fail_open`` is off.
        """
        request = ScoreRequest(
            subject=user_or_forecast,
            candidates=candidates,
            base_logits=base_logits,
            user_id=user_id,
            treatment=treatment,
        )
        work = Scoring.of(request)
        return self._run("score", work, self._begin(work, user_id, deadline_s, request_id))

    def score_many(
        self,
        requests: Iterable[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """Score for many users, so many at a time; the same order comes back.

        A request is taken from ``requests`` and encoded when there is a place for it, so that a
        generator of them is never far ahead of the calls.

        Raises:
            InvalidArgumentError: An argument of one is wrong; no request after it is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """

        def ask(request: ScoreRequest) -> Ranking:
            work = Scoring.of(request)
            return self._run("score", work, self._begin(work, request.user_id, deadline_s))

        return self._run_many(ask, requests, max_concurrency)


class AsyncRankingClient(AsyncioClient):
    """Adds priors to users' candidates, for asyncio; see `Client` for how it is made."""

    async def score(
        self,
        user_or_forecast: User | Mapping[str, Any] | bytes | Forecast,
        candidates: Ids,
        base_logits: Numbers,
        *,
        user_id: UserId | None = None,
        treatment: bool = True,
        deadline_s: float | None = None,
        request_id: str | None = None,
    ) -> Ranking:
        """See `RankingClient.score`."""
        request = ScoreRequest(
            subject=user_or_forecast,
            candidates=candidates,
            base_logits=base_logits,
            user_id=user_id,
            treatment=treatment,
        )
        work = Scoring.of(request)
        return await self._run("score", work, self._begin(work, user_id, deadline_s, request_id))

    async def score_many(
        self,
        requests: Iterable[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """See `RankingClient.score_many`."""

        async def ask(request: ScoreRequest) -> Ranking:
            work = Scoring.of(request)
            return await self._run("score", work, self._begin(work, request.user_id, deadline_s))

        return await self._run_many(ask, requests, max_concurrency)
