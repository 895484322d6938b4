"""Thin gRPC clients: ask a running adprior server for advertiser priors.

::

    with RetrievalClient("localhost:8001") as retrieval, RankingClient("localhost:8001") as ranking:
        forecast = retrieval.forecast(user, k=20)
        priors = ranking.score(forecast, candidate_ids, base_logits)

Importing this package loads NumPy and ``tritonclient.grpc``, and nothing else beyond the standard
library. An ads service that catches `ClientError` keeps working without the forecast.
"""

from adprior_client.errors import (
    BadAnswerError,
    ClientError,
    DeadlineError,
    InvalidArgumentError,
    UnavailableError,
)
from adprior_client.ranking import RankingClient
from adprior_client.retrieval import RetrievalClient
from adprior_client.types import Advertiser, Event, Forecast, RankedCandidate, Ranking, User

__all__ = [
    "Advertiser",
    "BadAnswerError",
    "ClientError",
    "DeadlineError",
    "Event",
    "Forecast",
    "InvalidArgumentError",
    "RankedCandidate",
    "Ranking",
    "RankingClient",
    "RetrievalClient",
    "UnavailableError",
    "User",
]
