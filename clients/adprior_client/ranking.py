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
    """Adds priors to the logits of users' candidates; `RetrievalClient` describes the arguments.

    A context manager, which threads may share. Channels open at the first call. Closing the client
    cancels the calls under way.
    """

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

        Ranking a user runs the language model. Ranking with a forecast, from a recent retrieval or
        a bulk run, does not. Without candidates nothing is sent.

        Args:
            user_or_forecast: The user, their context as a dict or as JSON bytes, or their forecast
                (which may be empty).
            candidates: Advertiser id of each candidate; an id may occur several times.
            base_logits: The ranker's logit of each candidate; sent as FP32.
            user_id: Keeps the user on one server, and finds their stored forecast.
            treatment: False for a user of the control group: nothing is sent or changed.
            deadline_s: Deadline of this call; the configuration's by default.
            request_id: Id of this call; random by default.

        Returns:
            The ranking. If no good answer came in time it has a ``reason``, and its logits are the
            base logits to the last bit.

        Raises:
            InvalidArgumentError: An argument is wrong; nothing was sent.
            ClientError: The server failed, and ``ClientConfig.fail_open`` is off.
        """
        request = ScoreRequest(
            subject=user_or_forecast,
            candidates=candidates,
            base_logits=base_logits,
            user_id=user_id,
            treatment=treatment,
        )
        return self._ask(Scoring.of(request), deadline_s, request_id)

    def score_many(
        self,
        requests: Iterable[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """Score for many users; results are in the order of the requests.

        A request is taken from ``requests`` when one of ``max_concurrency`` calls is free, so a
        generator stays only a few requests ahead of the calls.

        Raises:
            InvalidArgumentError: A request is wrong; no later request is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """
        return self._ask_many(Scoring.of, requests, max_concurrency, deadline_s)


class AsyncRankingClient(AsyncioClient):
    """`RankingClient` for asyncio: an asynchronous context manager, for one event loop.

    Cancelling the task that awaits a call cancels the call at the server too. Fork the process
    before the first call, or after closing.
    """

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
        return await self._ask(Scoring.of(request), deadline_s, request_id)

    async def score_many(
        self,
        requests: Iterable[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """See `RankingClient.score_many`."""
        return await self._ask_many(Scoring.of, requests, max_concurrency, deadline_s)
