"""`RedisForecasts` against a real redis-server: absent, corrupt, late, gone and back."""

from __future__ import annotations

import asyncio
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from adprior_client import (
    AsyncRetrievalClient,
    ForecastSource,
    InvalidArgumentError,
    LookupCounts,
    RedisForecasts,
)
from adprior_client.stored.redis_keys import field_of
from adprior_client.stored.redis_record import encode_records
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError
from support.client_calls import USER, Kind, assert_harmless, every_live_kind
from support.fake_triton import FakeTriton
from support.processes import await_true
from support.redis_server import (
    NOW,
    RedisServer,
    many_users,
    needs_redis,
    running_redis,
    write_forecasts,
)

pytestmark = needs_redis


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write two days' forecasts, whose first advertisers are 7 and 70."""
    place = tmp_path_factory.mktemp("forecasts")
    return [
        str(write_forecasts(place / f"{first}.parquet", many_users(50, first))) for first in (7, 70)
    ]


@pytest.fixture
def server(shared_server: RedisServer, forecasts: list[str]) -> RedisServer:
    shared_server.client().flushall()
    publish(shared_server, forecasts[0])
    return shared_server


def publish(server: RedisServer, path: str) -> None:
    assert main(["publish", "--redis", server.url, "--forecasts", path]) == 0


def first_of(source: RedisForecasts, user_id: Any = "user-7") -> int | None:
    found = source.find(user_id)
    return None if found is None else found.advertisers[0].advertiser_id


def calls(server: RedisServer, command: str) -> int:
    statistics: Any = server.client().info("commandstats")
    return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_lookup_needs_one_command(server: RedisServer) -> None:
    server.client().config_resetstat()
    with RedisForecasts(server.url, timeout_s=10, refresh_s=600) as source:
        assert isinstance(source, ForecastSource)
        assert source.version is None
        for _ in range(99):
            assert first_of(source) == 7
        found = source.find("user-7")
        assert found is not None
        assert [item.advertiser_id for item in found.advertisers] == [7, 8, 9]
        assert (found.made_at, found.bundle_id) == (NOW - timedelta(hours=1), "bundle-1")
        assert source.find("somebody else") is None
        assert source.find(7) is None
        assert source.find(None) is None  # type: ignore[arg-type]
        assert source.counts == LookupCounts(found=100, absent=3)
        assert source.counts.to_json()["found"] == 100
    assert (calls(server, "get"), calls(server, "hget")) == (1, 102)


def test_a_new_version_is_noticed_with_few_reads(server: RedisServer, forecasts: list[str]) -> None:
    with RedisForecasts(server.url, timeout_s=10, refresh_s=0.2) as source:
        assert first_of(source) == 7
        before = source.version
        publish(server, forecasts[1])
        server.client().config_resetstat()
        began = time.monotonic()
        await_true(lambda: first_of(source) != 7, poll_s=0)
        assert source.version != before
        took = time.monotonic() - began
        assert calls(server, "get") <= 2 + took / 0.2
        assert calls(server, "hget") <= source.counts.found
        assert main(["publish", "--redis", server.url, "--activate", str(before)]) == 0
        await_true(lambda: first_of(source) != 70)


def test_without_a_version_lookups_read_little(server: RedisServer) -> None:
    server.client().flushall()
    server.client().config_resetstat()
    with RedisForecasts(server.url, timeout_s=10, refresh_s=600) as source:
        for _ in range(10):
            assert source.find("user-7") is None
        assert source.counts == LookupCounts(absent=10)
    assert (calls(server, "get"), calls(server, "hget")) == (1, 0)


@pytest.mark.parametrize("how", ["garbage", "another user's", "cut", "of another type"])
def test_a_corrupt_record_is_not_used(
    server: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client()
    with RedisForecasts(server.url, timeout_s=10) as source:
        assert first_of(source) == 7
        bucket, field = f"adprior:{source.version}:0", field_of("user-7")
        record = client.hget(bucket, field)
        assert isinstance(record, bytes)
        if how == "of another type":
            client.delete(bucket)
            client.set(bucket, "text")
        else:
            other = client.hget(bucket, field_of("user-8"))
            raw = {"garbage": b"\xff" * 70, "another user's": other, "cut": record[:-1]}[how]
            client.hset(bucket, field, raw)
        for _ in range(5):
            assert source.find("user-7") is None
        assert source.counts == LookupCounts(found=1, corrupt=5)
    assert len(caplog.records) == 1
    assert "corrupt record" in caplog.text
    assert "user-7" not in caplog.text


@pytest.mark.parametrize(
    "pointer", [b"", b"\xff", b"[]", b'{"layout": 2}', b'{"layout": 1, "version": "v"}']
)
def test_a_malformed_pointer_counts_as_corrupt(server: RedisServer, pointer: bytes) -> None:
    server.client().set("adprior:current", pointer)
    with RedisForecasts(server.url, timeout_s=10) as source:
        assert source.find("user-7") is None
        assert source.find("user-7") is None
        assert source.counts == LookupCounts(corrupt=2)


def test_a_record_from_the_future_is_refused_and_counted(server: RedisServer) -> None:
    field = field_of("user-7")
    [ahead] = encode_records(
        [zlib.crc32(field)],
        as_of_us=np.array([int(time.time() + 3600) * 1_000_000]),
        exact=np.array([True]),
        missing_mass=np.zeros(1, dtype=np.float32),
        bundles=np.zeros(1, dtype=np.uint16),
        advertiser_ids=np.array([[7]]),
        log_probs=np.array([[-0.5]], dtype=np.float32),
    )
    with RedisForecasts(server.url, timeout_s=10) as source:
        assert first_of(source) == 7
        server.client().hset(f"adprior:{source.version}:0", field, ahead)
        assert source.find("user-7") is None
        assert source.counts == LookupCounts(found=1, from_future=1)


def test_threads_share_a_few_connections(server: RedisServer) -> None:
    with (
        RedisForecasts(server.url, timeout_s=30, max_connections=3, refresh_s=0.001) as source,
        ThreadPoolExecutor(24) as threads,
    ):
        users = [f"user-{number % 50}" for number in range(1200)]
        assert set(threads.map(lambda user: first_of(source, user), users)) == {7}
        assert len(server.client().client_list()) <= 3 + 1
        assert source.counts.found == 1200


def test_a_killed_redis_is_not_asked_until_it_is_back(
    tmp_path: Path, forecasts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(tmp_path) as server:
        publish(server, forecasts[0])
        with RedisForecasts(server.url, timeout_s=5) as source:
            assert first_of(source) == 7
            server.kill()
            for _ in range(50):
                assert source.find("user-7") is None
            assert source.counts.failed >= 3
            assert source.counts.skipped >= 40
            server.start()
            publish(server, forecasts[1])
            await_true(lambda: first_of(source) == 70)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "no stored forecasts: redis://127.0.0.1" in said[0]
    assert "stored forecasts are back" in said[1]


def test_a_missing_redis_is_not_an_error() -> None:
    with RedisForecasts("redis://127.0.0.1:1") as source:
        assert source.find("user-7") is None
        assert source.counts == LookupCounts(failed=1)


@every_live_kind
def test_a_stopped_redis_costs_at_most_the_deadline(
    triton: FakeTriton, server: RedisServer, kind: Kind
) -> None:
    """Redis' own timeout is far longer here: the call does not wait for it."""
    triton.status = grpc.StatusCode.INTERNAL
    with (
        RedisForecasts(server.url, timeout_s=3) as source,
        kind.open(triton.config(fail_open=True), stored=source) as client,
    ):
        assert first_of(source) == 7  # connected
        with server.standing_still():
            began = time.monotonic()
            result = client.ask(user_id="user-7", deadline_s=0.2)
            took = time.monotonic() - began
    assert took < 2
    assert_harmless(result)
    assert result.reason == "bad_answer"


def test_hanging_lookups_do_not_block_the_event_loops_threads(
    triton: FakeTriton, server: RedisServer
) -> None:
    triton.status = grpc.StatusCode.INTERNAL

    async def ask(source: RedisForecasts) -> float:
        config = triton.config(fail_open=True)
        async with AsyncRetrievalClient(config, stored=source) as client:
            users = [f"user-{number}" for number in range(40)]
            asked = [client.forecast(USER, user_id=user, deadline_s=0.1) for user in users]
            for result in await asyncio.gather(*asked):
                assert_harmless(result)
            began = time.monotonic()
            assert await asyncio.to_thread(int, "7") == 7
            return time.monotonic() - began

    with RedisForecasts(server.url, timeout_s=8) as source, server.standing_still():
        assert asyncio.run(ask(source)) < 4


def test_a_lookup_has_a_timeout(server: RedisServer) -> None:
    with RedisForecasts(server.url, timeout_s=0.1) as source:
        # The first lookup may be late on a busy machine.
        await_true(lambda: source.find("user-7") is not None)
        with server.standing_still():
            began = time.monotonic()
            for _ in range(200):
                assert source.find("user-7") is None
            took = time.monotonic() - began
        assert took < 3
        assert source.counts.skipped > 100


def test_a_new_password_is_read_from_its_file(tmp_path: Path, forecasts: list[str]) -> None:
    path = tmp_path / "password"
    path.write_text("the old one")
    with running_redis(tmp_path, "--requirepass", "the old one") as server:
        server.secret = "the old one"
        command = ["publish", "--redis", server.url, "--password-file", str(path)]
        assert main([*command, "--forecasts", forecasts[0]]) == 0
        with RedisForecasts(server.url, password_file=path, timeout_s=10) as source:
            assert first_of(source) == 7
            admin = server.client()
            admin.config_set("requirepass", "the new one")
            admin.client_kill_filter(_type="normal", skipme=True)
            path.write_text("the new one")
            await_true(lambda: first_of(source) == 7)
            assert source.counts.failed <= 1  # the connection that was cut


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost"}, "expected redis://HOST:PORT"),
        ({"url": "redis://u:hunter2@h"}, "the URL holds a password"),
        ({"namespace": "a b"}, "expected letters, digits"),
        ({"max_connections": 0}, "max_connections: found 0"),
        ({"password": "a", "password_file": "b"}, "expected one of them"),
        ({"password_file": "/nowhere"}, "/nowhere: No such file"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        RedisForecasts(**{"url": "redis://localhost"} | settings)


@pytest.mark.parametrize("name", ["timeout_s", "refresh_s"])
def test_times_must_be_above_zero(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        RedisForecasts("redis://localhost", **{name: 0})  # type: ignore[arg-type]
