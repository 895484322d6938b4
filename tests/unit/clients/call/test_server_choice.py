from __future__ import annotations

import logging
from collections import Counter

import pytest

from adprior_client import ClientConfig
from adprior_client._call.server_choice import Fleet

URLS = tuple(f"host-{number}:8001" for number in range(5))


def _order(fleet: Fleet, user: int, bundle_id: str = "") -> list[str]:
    return [server.url for server in fleet.order(f"user-{user}".encode(), bundle_id)]


def test_users_spread_evenly_over_the_servers() -> None:
    fleet, again = Fleet(ClientConfig(urls=URLS)), Fleet(ClientConfig(urls=URLS[::-1]))
    first = Counter(_order(fleet, user)[0] for user in range(5000))
    assert set(first) == set(URLS)
    assert max(first.values()) < 1.15 * 1000
    assert all(_order(fleet, user) == _order(again, user) for user in range(100))


def test_only_the_users_of_a_removed_server_move() -> None:
    all_of_them, fewer = Fleet(ClientConfig(urls=URLS)), Fleet(ClientConfig(urls=URLS[1:]))
    for user in range(500):
        left = [url for url in _order(all_of_them, user) if url != URLS[0]]
        assert _order(fewer, user) == left


def test_servers_of_the_bundle_come_first() -> None:
    fleet = Fleet(ClientConfig(urls=URLS))
    ranked = _order(fleet, 7)
    by_url = {server.url: server for server in fleet.servers}
    by_url[ranked[0]].bundle_id = "green"
    by_url[ranked[3]].bundle_id = "blue"
    by_url[ranked[1]].bundle_id = "green"
    # One server with another bundle is asked last: its bundle may have changed.
    assert _order(fleet, 7, "blue") == [ranked[3], ranked[2], ranked[4], ranked[0]]
    assert _order(fleet, 7) == ranked


def test_a_users_own_server_is_asked_if_its_bundle_is_unknown() -> None:
    fleet = Fleet(ClientConfig(urls=URLS))
    ranked = _order(fleet, 7)
    by_url = {server.url: server for server in fleet.servers}
    by_url[ranked[3]].bundle_id = "blue"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (0, 3, 1, 2, 4)]
    by_url[ranked[0]].bundle_id = "blue"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (0, 3, 1, 2, 4)]
    by_url[ranked[0]].bundle_id = "green"
    assert _order(fleet, 7, "blue") == [ranked[place] for place in (3, 1, 2, 4, 0)]


def test_long_addresses_share_the_users() -> None:
    urls = tuple(f"{'a' * 80}.example:{port}" for port in range(8001, 8005))
    fleet = Fleet(ClientConfig(urls=urls))
    assert {_order(fleet, user)[0] for user in range(100)} == set(urls)


def test_a_change_of_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    [server] = Fleet(ClientConfig(urls=URLS[:1], breaker_failures=2)).servers
    for _ in range(5):
        server.fail()
    server.succeed()
    server.succeed()
    assert [record.message for record in caplog.records] == [
        "adprior server host-0:8001: circuit breaker open",
        "adprior server host-0:8001: circuit breaker closed",
    ]


def test_a_later_cause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    [server] = Fleet(ClientConfig(urls=URLS[:1], breaker_failures=1)).servers
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
