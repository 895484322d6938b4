from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client import ClientConfig
from adprior_client._call.server_choice import Fleet, canary_position
from adprior_client.server_sources import Address

URLS = tuple(f"host-{number}:8001" for number in range(5))


def _fleet(urls: Sequence[str], **settings: Any) -> Fleet:
    return Fleet(ClientConfig(urls=URLS, **settings), [Address(url) for url in urls])


def _order(fleet: Fleet, user: int, bundle_id: str = "") -> list[str]:
    return [server.url for server in fleet.order(f"user-{user}".encode(), bundle_id)]


def test_users_spread_evenly_over_the_servers() -> None:
    fleet, again = _fleet(URLS), _fleet(URLS[::-1])
    first = Counter(_order(fleet, user)[0] for user in range(5000))
    assert set(first) == set(URLS)
    assert max(first.values()) < 1.15 * 1000
    assert all(_order(fleet, user) == _order(again, user) for user in range(100))


def test_only_the_users_of_a_removed_server_move() -> None:
    all_of_them, fewer = _fleet(URLS), _fleet(URLS[1:])
    for user in range(500):
        left = [url for url in _order(all_of_them, user) if url != URLS[0]]
        assert _order(fewer, user) == left


def test_servers_of_the_bundle_come_first() -> None:
    fleet = _fleet(URLS)
    ranked = _order(fleet, 7)
    by_url = {server.url: server for server in fleet.servers}
    by_url[ranked[0]].bundle_id = "green"
    by_url[ranked[3]].bundle_id = "blue"
    by_url[ranked[1]].bundle_id = "green"
    # One server with another bundle is asked last: its bundle may have changed.
    assert _order(fleet, 7, "blue") == [ranked[3], ranked[2], ranked[4], ranked[0]]
    assert _order(fleet, 7) == ranked


def test_a_users_own_server_is_asked_if_its_bundle_is_unknown() -> None:
    fleet = _fleet(URLS)
    ranked = _order(fleet, 7)
    by_url = {server.url: server for server in fleet.servers}
    by_url[ranked[3]].bundle_id = "blue"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (0, 3, 1, 2, 4)]
    by_url[ranked[0]].bundle_id = "blue"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (0, 3, 1, 2, 4)]
    by_url[ranked[0]].bundle_id = "green"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (3, 1, 2, 4, 0)]


CANARIES = (URLS[1], URLS[3])
STABLE = (URLS[0], URLS[2], URLS[4])


def _listed(share: float) -> list[Address]:
    return [Address(url, canary_share=share if url in CANARIES else None) for url in URLS]


def _split_fleet(share: float) -> Fleet:
    return Fleet(ClientConfig(urls=URLS), _listed(share))


def test_a_share_of_the_users_asks_one_canary_then_the_stable_servers() -> None:
    fleet, alone = _split_fleet(0.3), _fleet(STABLE)
    first: Counter[str] = Counter()
    for user in range(5000):
        order, without = _order(fleet, user), _order(alone, user)
        if order[0] in CANARIES:
            assert order[1:-1] == without
            assert set(order) == set(URLS)
        else:  # a canary is not even the last resort of the other users
            assert order == without
        first[order[0]] += 1
    assert sum(first[url] for url in CANARIES) == pytest.approx(1500, rel=0.1)
    assert first[URLS[1]] == pytest.approx(first[URLS[3]], rel=0.15)
    # The share is independent of the ranking: the other users still spread evenly.
    assert max(first[url] for url in STABLE) < 1.1 * 3500 / 3


@given(st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_users(user: int, one: float, two: float) -> None:
    small, large = sorted((one, two))
    before, after = _order(_split_fleet(small), user), _order(_split_fleet(large), user)
    if before[0] in CANARIES:
        assert after == before
    assert [url for url in before if url in STABLE] == [url for url in after if url in STABLE]
    assert 0 <= canary_position(f"user-{user}".encode()) < 1


def test_the_whole_share_is_all_users_and_none_is_nobody() -> None:
    for user in range(200):
        assert _order(_split_fleet(1.0), user)[0] in CANARIES
        assert set(_order(_split_fleet(0.0), user)) == set(STABLE)


def test_a_server_that_becomes_stable_keeps_its_state() -> None:
    fleet = _split_fleet(0.1)
    before = fleet.servers
    fleet.update([Address(url) for url in URLS])
    assert all(one is two for one, two in zip(before, fleet.servers, strict=True))
    assert set(_order(fleet, 7)) == set(URLS)
    listed = fleet.servers
    fleet.update([Address(url) for url in URLS])
    assert fleet.servers is listed


def test_a_forecast_of_the_canary_is_ranked_by_the_canaries() -> None:
    fleet = _split_fleet(1.0)
    for server in fleet.servers:
        server.bundle_id = "new" if server.url in CANARIES else "old"
    order = _order(fleet, 7)
    assert _order(fleet, 7, "new") == [order[0], order[-1], order[1]]
    assert _order(fleet, 7, "old") == [*order[1:-1], order[0]]


def test_long_addresses_share_the_users() -> None:
    urls = tuple(f"{'a' * 80}.example:{port}" for port in range(8001, 8005))
    fleet = _fleet(urls)
    assert {_order(fleet, user)[0] for user in range(100)} == set(urls)


def test_a_change_of_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    [server] = _fleet(URLS[:1], breaker_failures=2).servers
    for _ in range(5):
        server.fail()
    server.succeed()
    server.succeed()
    assert [record.message for record in caplog.records] == [
        "adprior server host-0:8001: circuit breaker open",
        "adprior server host-0:8001: circuit breaker closed",
    ]


def test_a_later_cause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    [server] = _fleet(URLS[:1], breaker_failures=1).servers
    for cause in ("", "a certificate", "a certificate", "", "a certificate"):
        server.fail(cause)
    assert str(server) == "host-0:8001 (a certificate)"
    server.succeed()
    assert str(server) == "host-0:8001"
    assert [record.message for record in caplog.records] == [
        "adprior server host-0:8001: circuit breaker open",
        "adprior server host-0:8001 (a certificate): circuit breaker open",
        "adprior server host-0:8001: circuit breaker closed",
    ]


# --- lists that change ----------------------------------------------------------------------------
USERS = range(40)
LISTS = st.lists(st.sets(st.sampled_from(URLS)), min_size=2, max_size=5)


@given(LISTS)
def test_only_users_of_a_server_that_left_or_came_move(lists: list[set[str]]) -> None:
    fleet = _fleet([])
    before: set[str] = set()
    homes: dict[int, str] = {}
    for now in lists:
        fleet.update([Address(url) for url in now])
        for user in USERS:
            home = next(iter(_order(fleet, user)), "")
            if before and now and home != homes[user]:
                # Without a new server, only the users of a server that left move.
                assert homes[user] not in now or home in now - before
            assert (home in now) == bool(now)
            homes[user] = home
        before = now


@given(LISTS)
def test_the_order_depends_only_on_the_list(lists: list[set[str]]) -> None:
    fleet = _fleet([])
    for now in lists:
        fleet.update([Address(url) for url in now])
        fresh = _fleet(sorted(now))
        assert all(_order(fleet, user) == _order(fresh, user) for user in USERS)


@given(LISTS, st.data())
def test_servers_that_stay_keep_their_breakers(lists: list[set[str]], data: st.DataObject) -> None:
    fleet = _fleet([], breaker_failures=1)
    is_open: dict[str, bool] = {}
    for now in lists:
        fleet.update([Address(url) for url in now])
        is_open = {url: is_open.get(url, False) for url in now}
        assert {server.url: server.breaker.is_open for server in fleet.servers} == is_open
        for server in fleet.servers:
            if data.draw(st.booleans()):
                server.fail()
                is_open[server.url] = True


def test_the_same_list_changes_nothing() -> None:
    fleet = _fleet(URLS)
    servers = fleet.servers
    fleet.update([Address(url) for url in URLS])
    assert fleet.servers is servers
    fleet.update([Address(url) for url in URLS[::-1]])
    assert set(fleet.servers) == set(servers)


def test_a_failure_is_reported_until_the_breaker_opens() -> None:
    failures: list[int] = []
    config = ClientConfig(urls=URLS, breaker_failures=2)
    fleet = Fleet(config, [Address(URLS[0])], on_failure=lambda: failures.append(1))
    [server] = fleet.servers
    server.succeed()
    assert not failures
    for _ in range(5):
        server.fail()
    assert len(failures) == 2
    server.succeed()
    server.check(is_ready=True)
    server.check(is_ready=False)
    assert len(failures) == 3
