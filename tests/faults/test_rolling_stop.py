"""Two servers that stop in turn, below a client under load, lose no call."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from adprior_client import ClientConfig, RankingClient, RetrievalClient
from adprior_client._call.server_choice import Server
from faults.conftest import Report
from faults.supervised_server import SupervisedServer
from faults.traffic import Traffic, call_healthy_server

pytestmark = pytest.mark.triton

PATIENT_S = 20.0
"""A deadline that only a lost call misses, even on a busy machine."""


@pytest.mark.parametrize(
    "drain_s",
    [
        pytest.param(0.0, id="at once"),
        pytest.param(4.0, id="drained", marks=pytest.mark.long_form),
    ],
)
def test_a_rolling_stop_of_two_servers_loses_no_call(
    tiny_repository: Path, drain_s: float, is_long: bool, report: Report
) -> None:
    options = ["--drain-seconds", str(drain_s)]
    with (
        SupervisedServer(tiny_repository, options) as blue,
        SupervisedServer(tiny_repository, options) as green,
    ):
        config = ClientConfig(urls=(blue.url, green.url), deadline_s=PATIENT_S)
        requests = call_healthy_server(config)
        with RankingClient(config) as client:
            with Traffic(client, requests, deadlines_s=(PATIENT_S, PATIENT_S)) as traffic:
                for server in [blue, green] * 2 if is_long else [blue]:
                    _await_both(client)
                    server.restart()
            outcomes = Counter(f"{call.outcome} {call.reason}" for call in traffic.calls)
    name = f"rolling stop, drained for {drain_s:g} s"
    report.sections[name] = {"calls": traffic.started, **outcomes}
    assert outcomes == {"adjusted None": traffic.started}
    assert traffic.started > 100


def _await_both(client: RankingClient) -> None:
    """Wait until the client uses both servers and is connected to both."""
    for server in client._fleet.servers:
        while server.breaker.is_open or not _is_reached(client, server):
            time.sleep(0.05)


def _is_reached(client: RankingClient, server: Server) -> bool:
    try:
        return bool(client._channel(server).is_server_ready(client_timeout=PATIENT_S))
    except InferenceServerException:
        return False


def test_a_server_that_drains_serves_until_a_second_signal(tiny_repository: Path) -> None:
    with SupervisedServer(tiny_repository, ["--drain-seconds", "600"]) as server:
        tritonserver = server.tritonserver
        server.start_no_more()
        command = server.terminate()
        config = ClientConfig(urls=(server.url,), deadline_s=PATIENT_S, health_interval_s=0)
        with RetrievalClient(config) as client:
            forecast = client.forecast({"as_of": "2024-05-31"})
            assert forecast.reason is None
            assert forecast.advertisers
        assert command.poll() is None
        command.send_signal(signal.SIGTERM)
        assert command.wait() == 0
        assert not tritonserver.is_running()
