"""The answers of one bundle's servers to the benchmark's requests, from a quiet server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.server.workload import UserRequest
from adprior_client import ClientConfig, ClientError, Forecast, RankingClient, RetrievalClient
from adprior_runtime.errors import EnvironmentProblemError

_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundleAnswers:
    """The answers of one bundle to the benchmark's requests.

    Attributes:
        bundle_id: The bundle.
        forecasts: The forecast of each request.
        held: float64 [candidates] of each request: the logits with that forecast.
        live: The same with a live forecast; empty if none will be asked for.
    """

    bundle_id: str
    forecasts: Sequence[Forecast]
    held: Sequence[npt.NDArray[np.float64]]
    live: Sequence[npt.NDArray[np.float64]]


def ask_server(address: str, requests: Sequence[UserRequest], *, with_live: bool) -> BundleAnswers:
    """Ask one server for every request, which also warms it up.

    Args:
        address: ``HOST:PORT`` of its gRPC.
        requests: One or more requests.
        with_live: Whether to rank with live forecasts too.

    Raises:
        EnvironmentProblemError: The server does not answer.
    """
    config = ClientConfig(urls=(address,), deadline_s=_DEADLINE_S, fail_open=False)
    forecasts, held, live = [], [], []
    with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
        try:
            for each in requests:
                context, rest = each.context.encode(), (each.candidate_ids, each.base_logits)
                forecasts.append(retrieval.forecast(context))
                held.append(ranking.score(forecasts[-1], *rest).logits)
                if with_live:
                    live.append(ranking.score(context, *rest).logits)
        except ClientError as error:
            raise EnvironmentProblemError(f"{address}: no answer: {error}") from error
    return BundleAnswers(
        bundle_id=forecasts[0].bundle_id, forecasts=forecasts, held=held, live=live
    )
