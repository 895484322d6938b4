"""Requests do not wait where nothing is to be waited for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from adprior_client import ClientConfig, RankingClient, RetrievalClient
from adprior_runtime.server.tritonserver import TritonServer

pytestmark = pytest.mark.triton

_HALF_A_SECOND = 0.45
"""After which a bounded queue of Triton's looks by itself whether an instance is free."""


def test_a_bounded_queue_does_not_sleep_on_requests(server: TritonServer) -> None:
    config = ClientConfig(urls=(server.grpc_address,), deadline_s=30, fail_open=False)
    user = {"profile": {}, "history": [], "as_of": "2024-03-01"}
    with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
        forecast = retrieval.forecast(user)

        def rank(_: int) -> float:
            began = time.perf_counter()
            ranking.score(forecast, candidates=[100, 101], base_logits=[-3, -3])
            return time.perf_counter() - began

        with ThreadPoolExecutor(4) as pool:
            waited = list(pool.map(rank, range(600)))
    # With one instance behind such a queue about forty did.
    assert sum(seconds > _HALF_A_SECOND for seconds in waited) < 6
