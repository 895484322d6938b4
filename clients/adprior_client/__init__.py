"""Clients for an ads service: a failing server never makes a call raise.

::

    with RetrievalClient("localhost:8001") as retrieval, RankingClient("localhost:8001") as ranking:
        forecast = retrieval.forecast(user, k=20, user_id=user_id)
        priors = ranking.score(forecast, candidate_ids, base_logits, user_id=user_id)

Importing this package loads only the standard library, NumPy and ``tritonclient.grpc``.
"""

from adprior_client._call.discovery import DiscoveryCounts
from adprior_client.blending import (
    BlendedItem,
    Concentration,
    ItemSource,
    RetrievedItem,
    advertiser_concentration,
    blend_retrieved,
)
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    BadAnswerError,
    BreakerOpenError,
    CancelledError,
    ClientError,
    DeadlineError,
    DeniedError,
    InvalidArgumentError,
    MetadataError,
    OtherBundleError,
    OverloadedError,
    UnavailableError,
)
from adprior_client.ranking import AsyncRankingClient, RankingClient
from adprior_client.requests import ForecastRequest, ScoreRequest
from adprior_client.results import Advertiser, Forecast, Interest, RankedCandidate, Ranking
from adprior_client.retrieval import AsyncRetrievalClient, RetrievalClient
from adprior_client.stored.forecast_source import ForecastSource, LookupCounts
from adprior_client.stored.parquet_source import ParquetForecasts
from adprior_client.stored.redis_source import RedisForecasts
from adprior_client.types import Event, Reason, Source, User

__all__ = [
    "Advertiser",
    "AsyncRankingClient",
    "AsyncRetrievalClient",
    "BadAnswerError",
    "BlendedItem",
    "BreakerOpenError",
    "CancelledError",
    "ClientConfig",
    "ClientError",
    "Concentration",
    "DeadlineError",
    "DeniedError",
    "DiscoveryCounts",
    "Event",
    "Forecast",
    "ForecastRequest",
    "ForecastSource",
    "Interest",
    "InvalidArgumentError",
    "ItemSource",
    "LookupCounts",
    "MetadataError",
    "OtherBundleError",
    "OverloadedError",
    "ParquetForecasts",
    "RankedCandidate",
    "Ranking",
    "RankingClient",
    "Reason",
    "RedisForecasts",
    "RetrievalClient",
    "RetrievedItem",
    "ScoreRequest",
    "Source",
    "UnavailableError",
    "User",
    "advertiser_concentration",
    "blend_retrieved",
]
