"""Clients follow a DNS name or a file: servers come and go without a restart."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from adprior_client import (
    AsyncRetrievalClient,
    ClientConfig,
    DeadlineError,
    DiscoveryCounts,
    Reason,
    RetrievalClient,
    UnavailableError,
)
from adprior_client._call.discovery import Discovery
from adprior_client.server_sources import Address
from support.client_calls import KINDS, USER, Kind, OpenClient, assert_harmless, every_kind
from support.fake_triton import FakeTriton, running_tritons, urls_of
from support.processes import await_true
from support.server_names import Names, host_of, port_of, tritons_on_one_port, write_servers

NAME = "pods.test"
both_drivers = pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.name)
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _config(url: str, **settings: Any) -> ClientConfig:
    defaults = {"discovery_interval_s": 0.01, "health_interval_s": 0.0, "deadline_s": 10.0}
    return ClientConfig(urls=(url,), **(defaults | settings))


def _named(server: FakeTriton, **settings: Any) -> ClientConfig:
    return _config(f"dns:///{NAME}:{port_of(server)}", **settings)


def _blue_green(server: FakeTriton, **settings: Any) -> ClientConfig:
    config = _named(server, **settings)
    port = port_of(server)
    return replace(config, urls=(f"dns:///green.test:{port}", f"dns:///blue.test:{port}"))


def _read(discovery: Discovery) -> None:
    for reader in discovery.readers:
        discovery.read(reader)


def _listed(client: OpenClient) -> set[str]:
    return {server.url for server in client.client._fleet.servers}


def _await_share(client: OpenClient, share: float) -> None:
    def is_known() -> bool:
        return share in {server.address.canary_share for server in client.client._fleet.servers}

    await_true(is_known, timeout_s=20)


def _await_listed(client: OpenClient, servers: list[FakeTriton]) -> None:
    await_true(lambda: _listed(client) == set(urls_of(servers)), timeout_s=20)


def _asked(client: OpenClient, servers: list[FakeTriton]) -> list[int]:
    """Return how many of 30 users each server is asked about."""
    for server in servers:
        server.calls.clear()
    for user in range(30):
        assert client.ask(user_id=user).reason is None
    return [len(server.calls) for server in servers]


# --- lists that change ----------------------------------------------------------------------------
@every_kind
def test_every_address_of_a_name_is_a_server(names: Names, kind: Kind) -> None:
    with tritons_on_one_port(3) as servers:
        names.answers[NAME] = [host_of(server) for server in servers[:2]]
        with kind.open(_named(servers[0])) as client:
            first, second, third = _asked(client, servers)
            assert min(first, second) > 0 == third
            names.answers[NAME] = [host_of(server) for server in servers[1:]]
            _await_listed(client, servers[1:])
            first, second, third = _asked(client, servers)
            assert min(second, third) > 0 == first


@both_drivers
def test_a_file_is_followed(tmp_path: Path, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "adprior_client")
    with running_tritons(2) as servers:
        url = write_servers(tmp_path / "servers", [servers[0].url])
        with kind.open(_config(url)) as client:
            assert _asked(client, servers) == [30, 0]
            write_servers(tmp_path / "servers", [servers[1].url])
            _await_listed(client, servers[1:])
            assert _asked(client, servers) == [0, 30]
            counts = client.client.discovery
    assert (counts.changed, counts.failed) == (2, 0)
    assert counts.answered >= 2
    assert [record.message for record in caplog.records] == [
        f"adprior: {url}: servers are now {server.url}" for server in servers
    ]


@both_drivers
def test_a_canary_gets_its_share_of_the_users(tmp_path: Path, kind: Kind) -> None:
    with running_tritons(2) as servers:
        stable, canary = servers
        url = write_servers(tmp_path / "servers", [stable.url, f"{canary.url} canary=0"])
        with kind.open(_config(url)) as client:
            assert _asked(client, servers) == [30, 0]
            asked = []
            for share in (0.2, 0.7, 1.0):
                write_servers(tmp_path / "servers", [stable.url, f"{canary.url} canary={share}"])
                _await_share(client, share)
                asked.append(_asked(client, servers)[1])
            assert 0 < asked[0] < asked[1] < asked[2] == 30
            canary.status = grpc.StatusCode.UNAVAILABLE
            assert _asked(client, servers)[0] == 30  # the stable server answers instead
            write_servers(tmp_path / "servers", [stable.url])
            _await_listed(client, servers[:1])
            assert _asked(client, servers) == [30, 0]


def test_sources_are_joined_and_each_address_counts_once(names: Names, tmp_path: Path) -> None:
    names.answers[NAME] = ["10.0.0.1", "10.0.0.2"]
    url = write_servers(tmp_path / "servers", ["10.0.0.2:8001", "10.0.0.3:8001"])
    config = ClientConfig(urls=("10.0.0.9:8001", f"dns:///{NAME}:8001", url))
    discovery = Discovery(config, lambda: None)
    assert [each.url for each in discovery.servers] == ["10.0.0.9:8001"]
    assert discovery.first.done()  # calls go to the server that is known
    _read(discovery)
    hosts = ["10.0.0.9", "10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [each.url for each in discovery.servers] == [f"{host}:8001" for host in hosts]
    names.answers[NAME] = UNKNOWN
    write_servers(tmp_path / "servers", ["10.0.0.4:8001"])
    _read(discovery)  # one source fails, the other one is used
    hosts[3] = "10.0.0.4"
    assert {each.url for each in discovery.servers} == {f"{host}:8001" for host in hosts}
    assert discovery.counts == DiscoveryCounts(answered=3, changed=3, failed=1)
    assert discovery.counts.to_json() == {"answered": 3, "changed": 3, "failed": 1}


def test_an_address_belongs_to_the_name_that_answers(names: Names) -> None:
    names.answers |= {"blue.test": ["10.0.0.1"], "green.test": ["10.0.0.2"]}
    config = ClientConfig(urls=("dns:///blue.test:1", "dns:///green.test:1"))
    discovery = Discovery(config, lambda: None)
    _read(discovery)
    names.answers |= {"blue.test": UNKNOWN, "green.test": ["10.0.0.1"]}
    _read(discovery)
    assert discovery.servers == (Address("10.0.0.1:1", "green.test"),)


@both_drivers
@pytest.mark.parametrize("failure", [UNKNOWN, []], ids=["failed", "empty"])
def test_a_failed_answer_keeps_the_servers(
    names: Names,
    triton: FakeTriton,
    kind: Kind,
    failure: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names.answers[NAME] = ["127.0.0.1"]
    with kind.open(_named(triton)) as client:
        assert client.ask().reason is None
        names.answers[NAME] = failure
        await_true(lambda: client.client.discovery.failed >= 3)
        assert client.ask().reason is None
        names.answers[NAME] = ["127.0.0.1"]
        answered = client.client.discovery.answered
        await_true(lambda: client.client.discovery.answered > answered)
        assert client.ask().reason is None
    stays, again = (record.message for record in caplog.records)
    assert stays.endswith(f"; the last known servers stay: {triton.url}")
    assert again == f"adprior: dns:///{NAME}:{port_of(triton)} answers again"


@both_drivers
def test_calls_under_way_end_at_a_server_that_left(tmp_path: Path, kind: Kind) -> None:
    with running_tritons(2) as (old, new):
        url = write_servers(tmp_path / "servers", [old.url])
        with kind.open(_config(url)) as client, ThreadPoolExecutor(1) as beside:
            old.hold = True

            def replace_server() -> list[Any]:
                await_true(lambda: old.calls)
                channels = [weakref.ref(each) for each in client.client._channels.values()]
                write_servers(tmp_path / "servers", [new.url])
                _await_listed(client, [new])
                await_true(lambda: not client.client._channels)
                assert channels[0]() is not None  # open as long as the call
                old.release.set()
                return channels

            replaced = beside.submit(replace_server)
            assert client.ask().reason is None
            assert client.ask().reason is None
            (channel,) = replaced.result()
            await_true(lambda: gc.collect() >= 0 and channel() is None)
    assert (len(old.calls), len(new.calls)) == (1, 1)


@both_drivers
def test_servers_that_stay_keep_channel_and_breaker(tmp_path: Path, kind: Kind) -> None:
    with running_tritons(3) as servers:
        url = write_servers(tmp_path / "servers", urls_of(servers[:2]))
        config = _config(url, breaker_failures=1, breaker_reset_s=600.0)
        with kind.open(config) as client:
            servers[0].status = grpc.StatusCode.INTERNAL
            for user in range(30):
                client.ask(user_id=user)
            channels = dict(client.client._channels)
            assert len(servers[0].calls) == 1
            write_servers(tmp_path / "servers", urls_of(servers))
            _await_listed(client, servers)
            assert _asked(client, servers)[0] == 0
            assert channels.items() <= client.client._channels.items()


# --- answers that are late or missing -------------------------------------------------------------
@both_drivers
def test_a_resolver_that_hangs_holds_no_call_beyond_its_deadline(
    names: Names, triton: FakeTriton, kind: Kind
) -> None:
    names.answers[NAME] = ["127.0.0.1"]
    names.may_answer.clear()
    with kind.open(_named(triton)) as client:
        began = time.monotonic()
        result = client.ask(deadline_s=0.2)
        assert 0.15 < time.monotonic() - began < 5
        assert_harmless(result)
        assert result.reason is Reason.DEADLINE
        names.may_answer.set()
        assert client.ask().reason is None
        names.may_answer.clear()
        asked = names.asked[NAME]
        await_true(lambda: names.asked[NAME] > asked)
        assert client.ask().reason is None  # the last known servers
    began = time.monotonic()
    with (
        kind.open(_named(triton, fail_open=False, deadline_s=0.1)) as client,
        pytest.raises(DeadlineError, match=rf"no server within 0\.1 s: not answered .*{NAME}"),
    ):
        client.ask()
    assert time.monotonic() - began < 5  # closing does not wait for the resolver


@both_drivers
def test_a_name_that_hangs_delays_no_other_source(names: Names, kind: Kind) -> None:
    with tritons_on_one_port(2) as (old, new):
        names.hold("green.test")
        names.answers["blue.test"] = [host_of(old)]
        with kind.open(_blue_green(old, discovery_interval_s=600.0, deadline_s=60.0)) as client:
            began = time.monotonic()
            assert client.ask().reason is None
            names.answers["blue.test"] = [host_of(new)]
            old.stop()
            assert client.ask().reason is None  # it waits for blue's new list
            new.stop()
            # Blue's list stays as it is, and green never listed a server: no wait.
            assert client.ask().reason is Reason.UNAVAILABLE
            assert time.monotonic() - began < 30
            assert len(new.calls) == 1


@both_drivers
def test_a_call_goes_on_with_any_new_server(names: Names, kind: Kind) -> None:
    with tritons_on_one_port(2) as (old, new):
        names.answers |= {"blue.test": [host_of(old)], "green.test": UNKNOWN}
        with kind.open(_blue_green(old, discovery_interval_s=600.0, deadline_s=60.0)) as client:
            assert client.ask().reason is None
            await_true(lambda: client.client.discovery.failed)
            names.hold("blue.test")
            names.answers["green.test"] = [host_of(new)]
            old.stop()
            began = time.monotonic()
            assert client.ask().reason is None
            assert time.monotonic() - began < 30
            assert len(new.calls) == 1


@both_drivers
def test_a_name_that_nobody_knows_yet(names: Names, triton: FakeTriton, kind: Kind) -> None:
    names.answers[NAME] = UNKNOWN
    config = _named(triton, discovery_interval_s=600.0)
    with kind.open(config) as client:
        began = time.monotonic()
        assert client.ask().reason is Reason.UNAVAILABLE
        assert time.monotonic() - began < 5  # no wait for the deadline
        names.answers[NAME] = ["127.0.0.1"]
        client.ask_until(None)  # a call without a server asks again
    names.answers[NAME] = UNKNOWN
    with (
        kind.open(replace(config, fail_open=False)) as client,
        pytest.raises(UnavailableError, match=f"no server is known: dns:///{NAME}:.*not known"),
    ):
        client.ask()


@both_drivers
def test_a_server_that_fails_has_its_list_asked_again(names: Names, kind: Kind) -> None:
    with tritons_on_one_port(2) as (old, new):
        names.answers[NAME] = [host_of(old)]
        with kind.open(_named(old, discovery_interval_s=600.0)) as client:
            assert client.ask().reason is None
            names.answers[NAME] = [host_of(new)]
            old.stop()
            # The call itself waits for the new list: no call is lost.
            assert client.ask().reason is None
            assert (len(new.calls), names.asked[NAME]) == (1, 2)


@both_drivers
def test_no_list_is_awaited_for_a_server_that_only_fails(
    names: Names, triton: FakeTriton, kind: Kind
) -> None:
    names.answers[NAME] = ["127.0.0.1"]
    with kind.open(_named(triton, discovery_interval_s=600.0, max_attempts=1)) as client:
        assert client.ask().reason is None
        names.may_answer.clear()
        triton.status = grpc.StatusCode.UNAVAILABLE  # a full queue, say
        began = time.monotonic()
        assert client.ask(deadline_s=30).reason is Reason.UNAVAILABLE
        assert time.monotonic() - began < 10
        await_true(lambda: names.asked[NAME] == 2)  # but the list is asked for, for later calls


@both_drivers
def test_a_call_tries_servers_that_join_meanwhile(tmp_path: Path, kind: Kind) -> None:
    with running_tritons(2) as (old, new):
        url = write_servers(tmp_path / "servers", [old.url])
        with kind.open(_config(url, max_attempts=2)) as client:
            answer = old.answer

            def leave(model: str, inputs: Any) -> Any:
                write_servers(tmp_path / "servers", [new.url])
                _await_listed(client, [new])
                old.status = grpc.StatusCode.UNAVAILABLE
                return answer(model, inputs)

            assert client.ask().reason is None
            old.answer = leave
            old.raw = None
            assert client.ask().reason is None
            assert client.ask().reason is None
    assert len(new.calls) == 1


@both_drivers
def test_a_closed_client_cancels_calls_that_wait(
    names: Names, triton: FakeTriton, kind: Kind
) -> None:
    names.may_answer.clear()
    with kind.open(_named(triton)) as client:
        closing = threading.Timer(0.2, client.client._discovery.close)
        closing.start()
        assert client.ask(deadline_s=30).reason is Reason.CANCELLED
        client.close()
        assert client.ask().reason is Reason.CANCELLED


# --- the thread -----------------------------------------------------------------------------------
def _discovering() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "adprior-discovery"]


def test_fixed_servers_need_no_thread(triton: FakeTriton) -> None:
    with RetrievalClient(triton.config()) as client:
        client.forecast(USER)
        assert not _discovering()
        assert client.discovery == DiscoveryCounts()


def test_the_thread_ends_with_its_client(names: Names, triton: FakeTriton) -> None:
    names.answers[NAME] = ["127.0.0.1"]
    with RetrievalClient(_named(triton)) as client:
        assert client.forecast(USER).reason is None
        assert len(_discovering()) == 1
    await_true(lambda: not _discovering())
    names.answers |= {"blue.test": ["127.0.0.1"], "green.test": UNKNOWN}
    with RetrievalClient(_blue_green(triton)) as client:
        assert client.forecast(USER).reason is None
        assert len(_discovering()) == 2
    await_true(lambda: not _discovering())

    async def forget() -> None:
        assert (await AsyncRetrievalClient(_named(triton)).forecast(USER)).reason is None

    asyncio.run(forget())
    await_true(lambda: gc.collect() >= 0 and not _discovering())


def test_many_failures_make_few_questions(names: Names) -> None:
    names.answers[NAME] = ["10.0.0.1"]
    discovery = Discovery(_config(f"dns:///{NAME}:1", discovery_interval_s=600.0), lambda: None)
    discovery.start()
    assert discovery.first.result(20) is None
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        discovery.renew()
        time.sleep(0.001)
    assert 2 <= names.asked[NAME] <= 2 + (time.monotonic() - began) / 0.2
    discovery.close()


@pytest.mark.parametrize("error", [RuntimeError("secret"), UnicodeError("label")])
def test_no_error_of_the_resolver_ends_the_thread(
    names: Names, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str, port: int) -> list[str]:
        raise error

    good: Callable[[str, int], list[str]] = names.look_up
    names.answers[NAME] = ["10.0.0.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adprior_client.server_sources.look_up", fail)
        discovery = Discovery(_config(f"dns:///{NAME}:1"), lambda: None)
        discovery.start()
        await_true(lambda: discovery.counts.failed >= 2)
        patch.setattr("adprior_client.server_sources.look_up", good)
        await_true(lambda: discovery.servers)
    discovery.close()
    assert "secret" not in caplog.text
