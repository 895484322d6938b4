"""``adprior publish`` against a real redis-server: what is written, counted, switched, undone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from adprior_bulk.publish import publisher_lock
from adprior_bulk.publish.versions import Version, Versions
from adprior_client import ParquetForecasts, RedisForecasts
from adprior_client.stored.redis_keys import Pointer
from adprior_client.stored.redis_record import CorruptRecordError
from adprior_runtime.cli import main
from support.redis_server import (
    NOW,
    RedisServer,
    many_users,
    needs_redis,
    row,
    running_redis,
    write_forecasts,
)

pytestmark = needs_redis
USERS = 3000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.client().flushall()
    return shared


def publish(server: RedisServer, *options: str) -> int:
    return main(["publish", "--redis", server.url, *options])


def published(server: RedisServer, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert publish(server, "--json", *options) == 0
    return json.loads(capsys.readouterr().out)


def firsts(server: RedisServer, count: int = USERS) -> set[int | None]:
    """Return the first advertisers that a new reader finds for users here and there."""
    with RedisForecasts(server.url, timeout_s=10) as source:
        found = [source.find(f"user-{number}") for number in range(0, count, 97)]
        assert source.counts.failed == source.counts.corrupt == 0
    return {None if item is None else item.advertisers[0].advertiser_id for item in found}


@pytest.fixture
def yesterday(tmp_path: Path) -> Path:
    return write_forecasts(tmp_path / "yesterday" / "a.parquet", many_users(USERS, 100)).parent


@pytest.fixture
def today(tmp_path: Path) -> Path:
    rows = many_users(USERS, 200, bundle_id="bundle-2")
    write_forecasts(tmp_path / "today" / "date=2024-05-31" / "shard=0000" / "a.parquet", rows[::2])
    write_forecasts(tmp_path / "today" / "date=2024-05-31" / "shard=0001" / "a.parquet", rows[1::2])
    return tmp_path / "today"


def test_what_is_read_back_is_what_the_parquet_source_has(
    server: RedisServer, tmp_path: Path
) -> None:
    """With users that come again, in whatever order, and some without advertisers."""
    shuffle = random.Random(3)
    rows = []
    for number in range(400):
        for _ in range(shuffle.randint(1, 3)):
            count = shuffle.randint(0, 5)
            rows.append(
                row(
                    f"üser-{number}",
                    as_of=NOW - timedelta(minutes=shuffle.randint(0, 20)),
                    advertiser_ids=shuffle.sample([-9, 2**40, *range(99)], count),
                    log_probs=sorted((-shuffle.random() for _ in range(count)), reverse=True),
                    exact=shuffle.random() < 0.5,
                    missing_mass=shuffle.random(),
                    bundle_id=shuffle.choice(["a", "b", "c"]),
                )
            )
    shuffle.shuffle(rows)
    for number in range(5):
        write_forecasts(tmp_path / "f" / f"{number}.parquet", rows[number::5])
    assert publish(server, "--forecasts", str(tmp_path / "f"), "--batch-rows", "50") == 0
    parquet = ParquetForecasts(tmp_path / "f")
    with RedisForecasts(server.url, timeout_s=10) as source:
        users = [f"üser-{number}" for number in range(400)]
        assert [source.find(user) for user in users] == [parquet.find(user) for user in users]
        assert source.find("somebody else") is None
    assert source.counts.found == len(parquet) < 400


def test_numbers_and_texts_are_different_users(server: RedisServer, tmp_path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(pa.Table.from_pylist([row(7, 70)]), tmp_path / "a.parquet")
    assert publish(server, "--forecasts", str(tmp_path / "a.parquet")) == 0
    with RedisForecasts(server.url, timeout_s=10) as source:
        found = source.find(7)
        assert found is not None
        assert found.advertisers[0].advertiser_id == 70
        assert source.find("7") is None


def test_a_switch_and_the_way_back(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = published(server, capsys, "--forecasts", str(yesterday))
    assert firsts(server) == {100}
    second = published(server, capsys, "--forecasts", str(today), "--keep-active")
    assert (second["active"], second["previous"]) == (False, first["version"])
    assert firsts(server) == {100}
    published(server, capsys, "--activate", second["version"])
    assert firsts(server) == {200}
    assert [item["active"] for item in published(server, capsys, "--list")] == [False, True]
    back = published(server, capsys, "--activate", first["version"])
    assert (back["previous"], back["bundle_ids"]) == (second["version"], ["bundle-1"])
    assert firsts(server) == {100}
    # The same files again: nothing is written, and the switch is made.
    before = server.client().dbsize()
    again = published(server, capsys, "--forecasts", str(today))
    assert (again["version"], again["already_there"]) == (second["version"], True)
    assert server.client().dbsize() == before
    assert firsts(server) == {200}


def test_everything_has_a_lifetime(
    server: RedisServer, yesterday: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(server, capsys, "--forecasts", str(yesterday), "--ttl", "90m")
    client = server.client()
    assert client.dbsize() == 4  # two buckets, the pointer, the notes
    assert all(5000 < client.ttl(key) <= 5401 for key in client.scan_iter())
    # Published again, the same files live on.
    published(server, capsys, "--forecasts", str(yesterday), "--ttl", "2h")
    assert all(6000 < client.ttl(key) <= 7201 for key in client.scan_iter())


def test_the_same_files_get_a_shorter_lifetime_too(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = published(server, capsys, "--forecasts", str(yesterday), "--ttl", "2h")
    again = published(server, capsys, "--forecasts", str(yesterday), "--ttl", "90m")
    assert (again["version"], again["already_there"]) == (first["version"], True)
    client = server.client()
    assert all(5000 < client.ttl(key) <= 5401 for key in client.scan_iter())
    [listed] = published(server, capsys, "--list")
    assert listed["expires_at"] == again["expires_at"]
    # Nor is another version touched, or what is known of it.
    published(server, capsys, "--forecasts", str(today), "--ttl", "3h")
    published(server, capsys, "--forecasts", str(yesterday), "--ttl", "80m", "--keep-active")
    lifetimes = {key: client.ttl(key) for key in client.scan_iter(f"adprior:{first['version']}:*")}
    assert all(4000 < left <= 4801 for left in lifetimes.values())
    for key in set(client.scan_iter()) - lifetimes.keys():
        assert 10_000 < client.ttl(key) <= 10_801
    assert firsts(server) == {200}


def test_an_older_version_is_read_when_the_newest_has_expired(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = published(server, capsys, "--forecasts", str(yesterday), "--ttl", "1h")
    second = published(server, capsys, "--forecasts", str(today), "--ttl", "1s")
    with RedisForecasts(server.url, timeout_s=10, refresh_s=600) as early:
        give_up = time.monotonic() + 20
        while any(server.client().scan_iter(f"adprior:{second['version']}:*")):
            assert early.find("user-7") is not None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        # Who looked before, who looks now, and the publisher, all see the older one.
        found = early.find("user-7")
        assert found is not None
        assert found.advertisers[0].advertiser_id == 100
        assert (early.version, early.counts.absent) == (first["version"], 0)
    assert firsts(server) == {100}
    [listed] = published(server, capsys, "--list")
    assert (listed["version"], listed["active"]) == (first["version"], True)
    # Its lifetime can be changed, though the pointer was made for the other.
    published(server, capsys, "--forecasts", str(yesterday), "--ttl", "2h", "--keep-active")
    assert 6000 < server.client().ttl("adprior:current") <= 7201
    assert firsts(server) == {100}


def test_the_newest_older_version_that_lives_stands_in() -> None:
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
        version("6", 990),  # newer: somebody went back from it
    ]
    pointer = known[4].pointer(known)
    assert [older.version for older in pointer.older] == ["4", "2", "1"]
    again = Pointer.parse(pointer.to_json())
    assert again == pointer
    times = (0, 399, 400, 699, 700, 899, 901)
    assert [again.living(now).version for now in times] == ["5", "5", "4", "4", "1", "1", "5"]


def test_only_versions_that_were_read_and_not_gone_back_from_stand_in(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_ins() -> list[str]:
        text = server.client().get("adprior:current")
        assert text is not None
        return [each.version for each in Pointer.parse(text).older]

    def files(name: str, advertiser_id: int) -> str:
        return str(write_forecasts(yesterday.with_name(name), [row("user-7", advertiser_id)]))

    first = published(server, capsys, "--forecasts", str(yesterday), "--ttl", "3h")["version"]
    bad = published(server, capsys, "--forecasts", str(today), "--ttl", "3h")["version"]
    assert stand_ins() == [first]
    published(server, capsys, "--activate", first)
    assert stand_ins() == []
    published(server, capsys, "--forecasts", files("c.parquet", 3), "--ttl", "3h", "--keep-active")
    last = files("d.parquet", 4)
    published(server, capsys, "--forecasts", last, "--ttl", "4h")
    assert stand_ins() == [first]
    published(server, capsys, "--forecasts", last, "--ttl", "1h")
    assert stand_ins() == [first]
    published(server, capsys, "--activate", bad)
    assert stand_ins() == [first]


def test_a_pointer_that_tells_no_lifetime_is_followed() -> None:
    raw = '{"version": "v", "buckets": 2, "users": 3, "bundle_ids": ["b"], "layout": 1}'
    pointer = Pointer.parse(raw)
    assert pointer.living(2e9) is pointer
    with pytest.raises(CorruptRecordError):
        Pointer.parse(raw.replace("}", ', "older": [{"version": "u"}]}'))


def test_the_summary_is_a_table_for_people(
    server: RedisServer, yesterday: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(server, "--forecasts", str(yesterday)) == 0
    shown = capsys.readouterr().out
    rows = dict(line.rsplit(maxsplit=1) for line in shown.splitlines())
    assert (rows["users"], rows["bundles"]) == ("3,000", "bundle-1")
    assert publish(server, "--list") == 0
    assert "3,000" in capsys.readouterr().out


def test_a_version_that_is_not_whole_is_not_read(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = published(server, capsys, "--forecasts", str(yesterday))["version"]
    published(server, capsys, "--forecasts", str(today))
    client = server.client()
    client.delete(f"adprior:{first}:0")
    assert publish(server, "--activate", first) == 2
    assert "of its 3,000 users: were keys evicted?" in capsys.readouterr().err
    assert publish(server, "--activate", "nothing") == 2
    assert "no complete version nothing; found 2" in capsys.readouterr().err
    assert firsts(server) == {200}
    # Its files are not "there already", either.
    assert not published(server, capsys, "--forecasts", str(yesterday))["already_there"]
    assert firsts(server) == {100}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user_id": None}, "row 1: user_id is null"),
        ({"as_of": None}, "row 1: as_of is null"),
        ({"exact": None}, "row 1: exact is null"),
        ({"missing_mass": 1.5}, "row 1: missing_mass: found 1.5, expected 0 to 1"),
        ({"log_probs": [-1.0]}, "row 1: log_probs: found 1 values for 3 advertisers"),
        ({"log_probs": [-1.0, None, -2.0]}, "row 1: log_probs holds a null"),
        ({"log_probs": [-1.0, float("nan"), -2.0]}, "row 1: log_probs: expected finite"),
        ({"log_probs": [0.5, -1.0, -2.0]}, "row 1: log_probs: expected finite"),
        ({"advertiser_ids": [7, 8, 7]}, "row 1: advertiser_ids: an advertiser is named twice"),
    ],
)
def test_a_row_that_is_no_forecast_stops_it_all(
    server: RedisServer,
    yesterday: Path,
    tmp_path: Path,
    changed: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published(server, capsys, "--forecasts", str(yesterday))
    before = server.client().dbsize()
    bad = write_forecasts(tmp_path / "bad.parquet", [row("a-user"), row("another") | changed])
    assert publish(server, "--forecasts", str(bad)) == 2
    error = capsys.readouterr().err
    assert f"bad.parquet: {message}" in error
    assert error.count("\n") == 1
    assert "another" not in error
    assert server.client().dbsize() == before
    assert firsts(server) == {100}


def test_a_row_from_the_future_is_left_out_and_counted(
    server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ahead = NOW + timedelta(days=60 * 365)
    rows = [row("both", 7), row("both", 9, as_of=ahead), row("alone", 9, as_of=ahead)]
    path = write_forecasts(tmp_path / "f.parquet", rows)
    done = published(server, capsys, "--forecasts", str(path))
    assert (done["users"], done["rows"], done["from_future"], done["replaced"]) == (1, 3, 2, 0)
    with RedisForecasts(server.url, timeout_s=10) as source:
        found = source.find("both")
        assert found is not None
        assert found.advertisers[0].advertiser_id == 7
        assert source.find("alone") is None
    server.client().flushall()
    assert publish(server, "--forecasts", str(path)) == 0
    assert re.search(r"rows dated in the future, left out +2\n", capsys.readouterr().out)
    alone = write_forecasts(tmp_path / "g.parquet", rows[1:])
    assert publish(server, "--forecasts", str(alone)) == 2
    assert "no forecast in these files (2 rows lie in the future" in capsys.readouterr().err


def test_files_without_a_forecast_change_nothing(
    server: RedisServer, yesterday: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(server, capsys, "--forecasts", str(yesterday))
    empty = write_forecasts(tmp_path / "e.parquet", [row("u", advertiser_ids=[], log_probs=[])])
    assert publish(server, "--forecasts", str(empty)) == 2
    assert "no forecast in these files" in capsys.readouterr().err
    assert publish(server, "--forecasts", str(tmp_path / "nowhere")) == 2
    assert "nowhere: no such file or directory" in capsys.readouterr().err
    (tmp_path / "text.parquet").write_text("text")
    assert publish(server, "--forecasts", str(tmp_path / "text.parquet")) == 2
    assert "text.parquet: not Parquet forecasts" in capsys.readouterr().err
    assert firsts(server) == {100}


def test_readers_see_one_version_or_the_other(
    server: RedisServer, yesterday: Path, today: Path
) -> None:
    assert publish(server, "--forecasts", str(yesterday)) == 0
    seen: list[int] = []
    stop = threading.Event()
    with RedisForecasts(server.url, timeout_s=10, refresh_s=0.02) as source:

        def read() -> None:
            while not stop.is_set():
                found = source.find(f"user-{random.randrange(USERS)}")
                seen.append(0 if found is None else found.advertisers[0].advertiser_id)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert publish(server, "--forecasts", str(today), "--batch-rows", "50") == 0
            give_up = time.monotonic() + 20
            while seen[-1] != 200 and time.monotonic() < give_up:
                time.sleep(0.01)
        finally:
            stop.set()
            reader.join()
    assert set(seen) == {100, 200}
    assert seen == sorted(seen)


def test_an_answer_that_is_lost_does_not_undo_the_switch(
    server: RedisServer,
    yesterday: Path,
    today: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published(server, capsys, "--forecasts", str(yesterday))
    complete = Versions.complete

    def lose(*args: Any, **options: Any) -> bool:
        complete(*args, **options)
        raise redis.ConnectionError("Connection reset by peer")

    monkeypatch.setattr(Versions, "complete", lose)
    assert publish(server, "--forecasts", str(today)) == 2
    assert "it is not known whether readers use it: see --list" in capsys.readouterr().err
    assert firsts(server) == {200}


# --- kills ----------------------------------------------------------------------------------------
def _start(server: RedisServer, forecasts: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from adprior_runtime.cli import main; main()"]
    command += ["publish", "--redis", server.url, "--forecasts", str(forecasts)]
    return subprocess.Popen(
        [*command, "--batch-rows", "20"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _await_writing(server: RedisServer, unfinished: int) -> None:
    """Return when so many users are in a version that is being written."""
    client, give_up = server.client(), time.monotonic() + 60
    while time.monotonic() < give_up:
        states = [json.loads(raw) for raw in client.hgetall("adprior:versions").values()]
        for state in states:
            buckets = [f"adprior:{state['name']}:{number}" for number in range(state["buckets"])]
            if not state["is_complete"] and sum(map(client.hlen, buckets)) >= unfinished:
                return
        time.sleep(0.001)
    raise AssertionError("the publisher did not begin")


def test_killed_at_any_moment_it_finishes_when_run_again(
    server: RedisServer, yesterday: Path, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(server, capsys, "--forecasts", str(yesterday))
    for unfinished in (1, 700, 2500):
        publisher = _start(server, today)
        _await_writing(server, unfinished)
        publisher.kill()
        publisher.wait()
        assert firsts(server) == {100}
    done = published(server, capsys, "--forecasts", str(today))
    assert (done["users"], done["unfinished_versions_removed"]) == (USERS, 1)
    assert firsts(server) == {200}
    assert server.client().dbsize() == 2 + 2 + 2  # two buckets of each, the pointer, the notes


def test_stopped_in_order_it_leaves_nothing(server: RedisServer, today: Path) -> None:
    publisher = _start(server, today)
    _await_writing(server, 1)
    publisher.send_signal(signal.SIGTERM)
    publisher.wait(60)
    assert server.client().dbsize() == 0


@pytest.mark.parametrize("saved", [True, False], ids=["with an append-only file", "unsaved"])
def test_redis_killed_while_it_is_written_to(
    tmp_path: Path,
    yesterday: Path,
    today: Path,
    saved: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always") if saved else ()
    (tmp_path / "data").mkdir()
    with running_redis(tmp_path / "data", *options) as server:
        published(server, capsys, "--forecasts", str(yesterday))

        def kill() -> None:
            _await_writing(server, 500)
            server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        assert publish(server, "--forecasts", str(today), "--batch-rows", "20") == 2
        killer.join()
        error = capsys.readouterr().err
        assert "no connection: " in error
        assert error.count("\n") == 1
        server.start()
        server.client().delete("adprior:publisher")  # its holder is this process, which lives on
        assert firsts(server) == ({100} if saved else {None})
        published(server, capsys, "--forecasts", str(today))
        assert firsts(server) == {200}


def test_a_redis_that_forgets_halfway_is_found_out(
    server: RedisServer, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lost in ("adprior:*:0", "*"):

        def forget(lost: str = lost) -> None:
            _await_writing(server, 500)
            client = server.client()
            client.delete(*client.keys(lost))

        killer = threading.Thread(target=forget)
        killer.start()
        assert publish(server, "--forecasts", str(today), "--batch-rows", "20") == 2
        killer.join()
        assert "evict" in capsys.readouterr().err
        assert firsts(server) == {None}
    assert server.client().dbsize() <= 1


# --- one at a time --------------------------------------------------------------------------------
def test_a_living_publisher_is_not_disturbed(
    server: RedisServer,
    today: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(publisher_lock, "_PATIENCE_S", 0.3)
    about = {"machine": publisher_lock._machine(), "pid": os.getpid(), "id": "other"}
    server.client().set("adprior:publisher", json.dumps(about))
    assert publish(server, "--forecasts", str(today)) == 2
    assert "another publisher is running" in capsys.readouterr().err
    assert publish(server, "--list") == 0  # looking, and switching, need no turn


def test_a_dead_ones_turn_is_taken_and_one_far_away_is_waited_for(
    server: RedisServer, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = server.client()
    gone = subprocess.Popen(["true"])
    gone.wait()
    about = {"machine": publisher_lock._machine(), "pid": gone.pid, "id": "other"}
    client.set("adprior:publisher", json.dumps(about))
    published(server, capsys, "--forecasts", str(today))
    client.set("adprior:publisher", json.dumps(about | {"machine": "far"}), px=600)
    published(server, capsys, "--forecasts", str(today))
    assert not client.exists("adprior:publisher")


def test_one_that_stood_still_gives_way(
    server: RedisServer, today: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def take_over() -> None:
        _await_writing(server, 500)
        server.client().set("adprior:publisher", "another's")

    thief = threading.Thread(target=take_over)
    thief.start()
    assert publish(server, "--forecasts", str(today), "--batch-rows", "20") == 2
    thief.join()
    assert "another publisher took over while this one was suspended" in capsys.readouterr().err
    assert server.client().get("adprior:publisher") == b"another's"
    assert firsts(server) == {None}
