"""The forecasts that callers have at hand: asked of the server itself, which also warms it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from adprior_bench.server.workload import StoredForecast, UserRequest
from adprior_client import ClientConfig, ClientError, RetrievalClient
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError

_DEADLINE_S = 60.0


def ask_forecasts(
    requests: Sequence[UserRequest], connection: ClientConfig, bundle_id: str
) -> list[UserRequest]:
    """Return the requests with each user's forecast.

    Args:
        requests: Whose.
        connection: The server's one address, and what it wants to see.
        bundle_id: What it is thought to serve.

    Raises:
        InvalidInputError: It serves another bundle.
        EnvironmentProblemError: It does not answer.
    """
    config = replace(connection, deadline_s=_DEADLINE_S, fail_open=False)
    (address,) = connection.urls
    asked = []
    with RetrievalClient(config) as client:
        for request in tqdm(requests, unit="user", desc="forecasts", leave=False, disable=None):
            try:
                forecast = client.forecast(request.context.encode())
            except ClientError as error:
                raise EnvironmentProblemError(f"{address}: no forecast: {error}") from error
            if forecast.bundle_id != bundle_id:
                raise InvalidInputError(
                    f"{address} serves bundle {forecast.bundle_id}, --bundle is {bundle_id}"
                )
            stored = StoredForecast(
                advertiser_ids=[item.advertiser_id for item in forecast.advertisers],
                log_probs=[item.log_prob for item in forecast.advertisers],
                missing_mass=forecast.missing_mass,
                exact=forecast.exact,
            )
            asked.append(replace(request, forecast=stored))
    return asked
