"""Real servers that come and go under load, below clients that follow a name or a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adprior_client import ClientConfig, RankingClient
from adprior_runtime.server.endpoints import free_ports
from faults.asyncio_traffic import AsyncioTraffic
from faults.conftest import Report
from faults.supervised_server import SupervisedServer
from faults.traffic import Request, Traffic, call_healthy_server
from support.processes import await_true
from support.server_names import Names, write_servers

pytestmark = pytest.mark.triton

NAME = "pods.test"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
PATIENT_S = 20.0
"""A deadline that only a lost call misses, even on a busy machine."""
USERS = 50

Publish = Callable[[list[SupervisedServer]], None]


@pytest.fixture(scope="module")
def servers(tiny_repository: Path) -> Iterator[list[SupervisedServer]]:
    """Three servers with one port, as the addresses of one name."""
    (port,) = free_ports(1)
    found = [SupervisedServer(tiny_repository, host=host, grpc_port=port) for host in HOSTS]
    with ExitStack() as stack, ThreadPoolExecutor(len(found)) as pool:
        for server in found:
            stack.push(server.__exit__)
        list(pool.map(SupervisedServer.__enter__, found))
        yield found


@pytest.fixture(scope="module")
def requests(servers: list[SupervisedServer]) -> list[Request]:
    return call_healthy_server(ClientConfig(urls=(servers[0].url,)))


@pytest.fixture(params=["name", "file"])
def followed(
    request: pytest.FixtureRequest,
    names: Names,
    tmp_path: Path,
    servers: list[SupervisedServer],
) -> tuple[ClientConfig, Publish]:
    """A client's settings, and a function that changes the list of servers."""

    def publish(now: list[SupervisedServer]) -> None:
        names.answers[NAME] = [server.url.rpartition(":")[0] for server in now]
        write_servers(tmp_path / "servers", [server.url for server in now])

    publish(servers)
    port = servers[0].url.rpartition(":")[2]
    urls = {"name": f"dns:///{NAME}:{port}", "file": f"file://{tmp_path}/servers"}
    config = ClientConfig(
        urls=(urls[request.param],), deadline_s=PATIENT_S, discovery_interval_s=0.25
    )
    return config, publish


def _assert_no_call_was_lost(
    report: Report,
    name: str,
    requests: list[Request],
    traffic: Traffic,
    beside: AsyncioTraffic,
) -> None:
    """Each call has the logits of a healthy server, and one bundle: that of the servers."""
    outcomes = Counter(f"{call.outcome} {call.reason}" for call in traffic.calls)
    threads, asyncio = dict(outcomes), dict(beside.outcomes)
    seconds = [call.ended - call.began for call in traffic.calls]
    report.sections[name] = {
        "threads": threads,
        "asyncio": asyncio,
        "deadline_s": PATIENT_S,
        "p50_s": round(float(np.percentile(seconds, 50)), 4),
        "p99_s": round(float(np.percentile(seconds, 99)), 4),
    }
    assert threads == {"adjusted None": traffic.started}
    assert asyncio == {"adjusted None": beside.outcomes.total()}
    bundle_ids = {request.forecast.bundle_id for request in requests}
    assert len(bundle_ids) == 1
    assert {call.bundle_id for call in traffic.calls} == bundle_ids
    assert beside.bundle_ids == bundle_ids
    assert traffic.started > 50
    assert beside.outcomes.total() > 10


def _await_list(client: RankingClient, urls: set[str]) -> None:
    await_true(lambda: {server.url for server in client._fleet.servers} == urls)


def _await_calls(traffic: Traffic, beside: AsyncioTraffic) -> None:
    """Wait for some calls of both loads."""
    threads, asyncio = len(traffic.calls), beside.outcomes.total()
    await_true(
        lambda: len(traffic.calls) >= threads + 20 and beside.outcomes.total() >= asyncio + 5
    )


def test_a_list_that_changes_under_load_loses_no_call(
    servers: list[SupervisedServer],
    requests: list[Request],
    followed: tuple[ClientConfig, Publish],
    is_long: bool,
    report: Report,
) -> None:
    config, publish = followed
    first, second, third = servers
    lists = [[first], [second, third], [third], [first, third], [second], servers]
    with RankingClient(config) as client:
        with (
            Traffic(client, requests, deadlines_s=(PATIENT_S, PATIENT_S), users=USERS) as traffic,
            AsyncioTraffic(config, requests, users=USERS) as beside,
        ):
            for now in lists * (10 if is_long else 1):
                publish(now)
                _await_list(client, {server.url for server in now})
                _await_calls(traffic, beside)
        assert client.discovery.changed >= len(lists)
    assert beside.discovered > 1
    name = f"the list changes, {config.urls[0].partition(':')[0]}"
    _assert_no_call_was_lost(report, name, requests, traffic, beside)


@pytest.mark.parametrize("followed", ["name"], indirect=True)
def test_servers_that_are_replaced_one_by_one_lose_no_call(
    servers: list[SupervisedServer],
    requests: list[Request],
    followed: tuple[ClientConfig, Publish],
    is_long: bool,
    report: Report,
) -> None:
    """Two of three addresses are listed; the third one has the server that comes next."""
    config, publish = followed
    config = replace(config, discovery_interval_s=1.0)
    turns = 6 if is_long else 2
    publish(servers[:2])
    with (
        RankingClient(config) as client,
        Traffic(client, requests, deadlines_s=(PATIENT_S, PATIENT_S), users=USERS) as traffic,
        AsyncioTraffic(config, requests, users=USERS) as beside,
    ):
        for turn in range(turns):
            leaving, staying, coming = (servers[(turn + place) % 3] for place in range(3))
            coming.await_ready()
            # The clients hear of it up to a second later.
            publish([staying, coming])
            if turn + 1 < turns:
                leaving.restart()
            else:
                leaving.start_no_more()
                leaving.terminate()  # it rejects calls from now on, and is gone seconds later
            _await_list(client, {staying.url, coming.url})
            _await_calls(traffic, beside)
    name = "servers are replaced one by one"
    _assert_no_call_was_lost(report, name, requests, traffic, beside)
