"""The servers that one call asks, and the number of attempts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from adprior_client import RankingClient, Reason
from adprior_runtime import contract
from support.client_calls import (
    BASE,
    CANDIDATES,
    FORECAST,
    USER,
    Kind,
    assert_harmless,
    every_kind,
)
from support.fake_triton import FakeTriton, running_tritons, urls_of


@every_kind
def test_a_user_moves_only_while_their_server_is_down(
    tritons: list[FakeTriton], kind: Kind
) -> None:
    config = tritons[0].config(urls=urls_of(tritons))
    kind.ask(config, times=6, user_id="u")
    mine, other = sorted(tritons, key=lambda server: -len(server.calls))
    assert (len(mine.calls), len(other.calls)) == (6, 0)
    mine.status = grpc.StatusCode.UNAVAILABLE
    assert kind.ask(config, times=3, user_id="u").reason is None
    assert len(other.calls) == 3


@every_kind
def test_servers_that_are_not_ready_are_not_asked(tritons: list[FakeTriton], kind: Kind) -> None:
    for server in tritons:
        server.ready = False
    config = tritons[0].config(fail_open=True, health_interval_s=0.05, urls=urls_of(tritons))
    with kind.open(config) as client:
        assert_harmless(client.ask_until(Reason.BREAKER_OPEN))


def test_a_forecast_goes_to_a_server_of_its_bundle(tritons: list[FakeTriton]) -> None:
    for server, name in zip(tritons, (b"blue", b"green"), strict=True):
        server.change(**{contract.BUNDLE_ID: np.array([[name]], dtype=np.object_)})
    with RankingClient(tritons[0].config(urls=urls_of(tritons))) as client:
        for user in range(20):
            for bundle in ("blue", "green"):
                forecast = replace(FORECAST, bundle_id=bundle)
                ranking = client.score(forecast, CANDIDATES, BASE, user_id=user)
                assert (ranking.reason, ranking.bundle_id) == (None, bundle)
    # At most one extra call per server, until its bundle is known.
    assert sum(len(server.calls) for server in tritons) <= 42


@pytest.mark.parametrize(
    ("count", "backoff_s", "deadline_s", "calls", "shortest_s", "longest_s"),
    [(5, 0.1, 10.0, 3, 0.8 * 0.3, 2.0), (2, 5.0, 0.5, 1, 0.0, 0.5)],
    ids=["pauses", "a pause beyond the deadline"],
)
def test_overloaded_servers_are_asked_with_pauses(
    count: int,
    backoff_s: float,
    deadline_s: float,
    calls: int,
    shortest_s: float,
    longest_s: float,
) -> None:
    with running_tritons(count) as servers:
        for server in servers:
            server.status = grpc.StatusCode.RESOURCE_EXHAUSTED
        config = servers[0].config(
            urls=urls_of(servers),
            fail_open=True,
            max_attempts=3,
            initial_backoff_s=backoff_s,
            max_backoff_s=5.0,
        )
        with RankingClient(config) as client:
            began = time.monotonic()
            ranking = client.score(USER, CANDIDATES, BASE, deadline_s=deadline_s)
            took = time.monotonic() - began
        assert ranking.reason is Reason.UNAVAILABLE
        assert sum(len(server.calls) for server in servers) == calls
        assert shortest_s <= took < longest_s


def test_a_very_short_deadline_does_not_count_against_the_server(triton: FakeTriton) -> None:
    answer = triton.answer

    def slowly(model: str, asked: Any) -> Any:
        time.sleep(0.03)
        return answer(model, asked)

    triton.answer = slowly
    with RankingClient(triton.config(fail_open=True, breaker_failures=1)) as client:
        for _ in range(3):
            assert client.score(USER, CANDIDATES, BASE, deadline_s=0.005).reason == "deadline"
        assert client.score(USER, CANDIDATES, BASE, deadline_s=5).reason is None
