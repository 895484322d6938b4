from __future__ import annotations

from pathlib import Path

import pytest

from adprior_bulk.publish.versions import Version
from adprior_client import RedisForecasts
from adprior_client.stored.redis_keys import Pointer
from adprior_client.stored.redis_record import CorruptRecordError
from support.processes import await_true
from support.publisher import Publisher
from support.redis_server import needs_redis, row, write_forecasts

pytestmark = needs_redis


def test_every_key_expires_and_republishing_changes_when(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    client = publisher.server.client()
    first = publisher("--forecasts", yesterday, "--ttl", "90m")
    assert client.dbsize() == 4  # two buckets, the pointer, the entries of versions
    assert all(5000 < client.ttl(key) <= 5401 for key in client.scan_iter())
    publisher("--forecasts", yesterday, "--ttl", "2h")
    assert all(6000 < client.ttl(key) <= 7201 for key in client.scan_iter())
    again = publisher("--forecasts", yesterday, "--ttl", "90m")
    assert (again["version"], again["already_there"]) == (first["version"], True)
    assert all(5000 < client.ttl(key) <= 5401 for key in client.scan_iter())
    [listed] = publisher("--list")
    assert listed["expires_at"] == again["expires_at"]
    # Other versions and their entries keep their lifetime.
    publisher("--forecasts", today, "--ttl", "3h")
    publisher("--forecasts", yesterday, "--ttl", "80m", "--keep-active")
    lifetimes = {key: client.ttl(key) for key in client.scan_iter(f"adprior:{first['version']}:*")}
    assert all(4000 < left <= 4801 for left in lifetimes.values())
    for key in set(client.scan_iter()) - lifetimes.keys():
        assert 10_000 < client.ttl(key) <= 10_801
    assert publisher.first_advertisers() == {200}


def test_an_older_version_is_read_when_the_newest_has_expired(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    client = publisher.server.client()
    first = publisher("--forecasts", yesterday, "--ttl", "1h")
    second = publisher("--forecasts", today, "--ttl", "1s")
    with RedisForecasts(publisher.server.url, timeout_s=10, refresh_s=600) as early:

        def has_expired() -> bool:
            assert early.find("user-7") is not None
            return not any(client.scan_iter(f"adprior:{second['version']}:*"))

        await_true(has_expired)
        # An early reader, a new reader and the publisher all see the older version.
        found = early.find("user-7")
        assert found is not None
        assert found.advertisers[0].advertiser_id == 100
        assert (early.version, early.counts.absent) == (first["version"], 0)
    assert publisher.first_advertisers() == {100}
    [listed] = publisher("--list")
    assert (listed["version"], listed["active"]) == (first["version"], True)
    # Its lifetime can be changed, though the pointer was made for the other version.
    publisher("--forecasts", yesterday, "--ttl", "2h", "--keep-active")
    assert 6000 < client.ttl("adprior:current") <= 7201
    assert publisher.first_advertisers() == {100}


def test_the_newest_complete_older_version_is_the_fallback() -> None:
    def version(name: str, expires_at: int, *, is_complete: bool = True) -> Version:
        return Version(
            name=name,
            fingerprint=name,
            buckets=1,
            users=1,
            expires_at=expires_at,
            is_complete=is_complete,
        )

    known = [
        version("1", 900),
        version("2", 500),
        version("3", 950, is_complete=False),
        version("4", 700),
        version("5", 400),
        version("6", 990),  # newer: it was rolled back
    ]
    pointer = known[4].pointer(known)
    assert [older.version for older in pointer.older] == ["4", "2", "1"]
    again = Pointer.parse(pointer.to_json())
    assert again == pointer
    times = (0, 399, 400, 699, 700, 899, 901)
    assert [again.unexpired(now).version for now in times] == ["5", "5", "4", "4", "1", "1", "5"]


def test_a_pointer_without_a_lifetime_is_followed() -> None:
    raw = '{"version": "v", "buckets": 2, "users": 3, "bundle_ids": ["b"], "layout": 1}'
    pointer = Pointer.parse(raw)
    assert pointer.unexpired(2e9) is pointer
    with pytest.raises(CorruptRecordError):
        Pointer.parse(raw.replace("}", ', "older": [{"version": "u"}]}'))


def test_only_versions_that_were_in_use_and_not_rolled_back_are_fallbacks(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    def fallbacks() -> list[str]:
        text = publisher.server.client().get("adprior:current")
        assert text is not None
        return [each.version for each in Pointer.parse(text).older]

    def files(name: str, advertiser_id: int) -> Path:
        return write_forecasts(yesterday.with_name(name), [row("user-7", advertiser_id)])

    first = publisher("--forecasts", yesterday, "--ttl", "3h")["version"]
    bad = publisher("--forecasts", today, "--ttl", "3h")["version"]
    assert fallbacks() == [first]
    publisher("--activate", first)
    assert fallbacks() == []
    publisher("--forecasts", files("c.parquet", 3), "--ttl", "3h", "--keep-active")
    last = files("d.parquet", 4)
    for ttl in ("4h", "1h"):
        publisher("--forecasts", last, "--ttl", ttl)
        assert fallbacks() == [first]
    publisher("--activate", bad)
    assert fallbacks() == [first]


def test_a_version_that_lost_users_is_not_activated(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    first = publisher("--forecasts", yesterday)["version"]
    publisher("--forecasts", today)
    publisher.server.client().delete(f"adprior:{first}:0")
    error = publisher.error("--activate", first)
    assert "of its 3,000 users: were keys evicted?" in error
    assert "no complete version nothing; found 2" in publisher.error("--activate", "nothing")
    assert publisher.first_advertisers() == {200}
    # Its files are written again.
    assert not publisher("--forecasts", yesterday)["already_there"]
    assert publisher.first_advertisers() == {100}
