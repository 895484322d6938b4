"""Ranking: the ranker's logits with a calibrated prior added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adprior_client import codec
from adprior_client._asyncio import AsyncioClient
from adprior_client._blocking import BlockingClient
from adprior_client._calls import Call, Steps
from adprior_client._core import Candidates, Core
from adprior_client.results import Forecast, Ranking
from adprior_client.types import ScoreRequest, User, UserId

__all__ = ["AsyncRankingClient", "RankingClient"]


class RankingClient(BlockingClient):
    """Adds priors to users' candidates; see `BlockingClient` for how it is made."""

    def score(
        self,
        user_or_forecast: User | Mapping[str, Any] | bytes | Forecast,
        candidates: Sequence[int],
        base_logits: Sequence[float],
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
        call, steps = _begin(self._core, request, deadline_s, request_id)
        return self._run("score", call, steps)

    def score_many(
        self,
        requests: Sequence[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """Score for many users, so many at a time; the same order comes back.

        Raises:
            InvalidArgumentError: An argument of any is wrong; found before anything is sent.
            ClientError: The server failed on one, and ``ClientConfig.fail_open`` is off.
        """
        _check_many(self._core, requests, deadline_s)

        def ask(request: ScoreRequest) -> Ranking:
            call, steps = _begin(self._core, request, deadline_s, None)
            return self._run("score", call, steps)

        return self._run_many(ask, requests, max_concurrency)


class AsyncRankingClient(AsyncioClient):
    """Adds priors to users' candidates, for asyncio; see `AsyncioClient` for how it is made."""

    async def score(
        self,
        user_or_forecast: User | Mapping[str, Any] | bytes | Forecast,
        candidates: Sequence[int],
        base_logits: Sequence[float],
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
        call, steps = _begin(self._core, request, deadline_s, request_id)
        return await self._run("score", call, steps)

    async def score_many(
        self,
        requests: Sequence[ScoreRequest],
        *,
        max_concurrency: int = 8,
        deadline_s: float | None = None,
    ) -> list[Ranking]:
        """See `RankingClient.score_many`."""
        _check_many(self._core, requests, deadline_s)

        async def ask(request: ScoreRequest) -> Ranking:
            call, steps = _begin(self._core, request, deadline_s, None)
            return await self._run("score", call, steps)

        return await self._run_many(ask, requests, max_concurrency)


def _begin(
    core: Core, request: ScoreRequest, deadline_s: float | None, request_id: str | None
) -> tuple[Call, Steps[Ranking]]:
    """Check a request, and return the call with its steps."""
    candidates = Candidates.of(request.candidates, request.base_logits, treatment=request.treatment)
    subject = request.subject
    if isinstance(subject, Forecast):
        known = codec.encode_forecast(subject)
        call = core.begin(subject.request_id.encode(), request.user_id, deadline_s, request_id)
        return call, core.score_forecast(call, subject, known, candidates)
    context = codec.encode_user(subject)
    call = core.begin(context[0], request.user_id, deadline_s, request_id)
    return call, core.score_user(call, context, candidates)


def _check_many(core: Core, requests: Sequence[ScoreRequest], deadline_s: float | None) -> None:
    for request in requests:
        _begin(core, request, deadline_s, None)
