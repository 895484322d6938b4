"""Requests as values, for calls about many users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adprior_client.results import Forecast
from adprior_client.types import Ids, Numbers, User, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRequest:
    """One forecast of `RetrievalClient.forecast_many`; see `RetrievalClient.forecast`."""

    user: User | Mapping[str, Any] | bytes = field(repr=False)
    k: int | None = None
    user_id: UserId | None = field(default=None, repr=False)
    excluded_advertiser_ids: Ids = ()
    treatment: bool = True
    interest_k: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One ranking of `RankingClient.score_many`; see `RankingClient.score`."""

    subject: User | Mapping[str, Any] | bytes | Forecast = field(repr=False)
    candidates: Ids
    base_logits: Numbers
    user_id: UserId | None = field(default=None, repr=False)
    treatment: bool = True
