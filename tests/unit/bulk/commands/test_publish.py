"""``adprior publish`` against a real redis-server: what readers find, and what is printed."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from adprior_client import ParquetForecasts, RedisForecasts
from support.processes import await_true
from support.publisher import USERS, Publisher
from support.redis_server import NOW, needs_redis, row, write_forecasts

pytestmark = needs_redis


def test_redis_and_parquet_give_the_same_forecasts(publisher: Publisher, tmp_path: Path) -> None:
    """Users are repeated in any order, and some rows have no advertisers."""
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
    publisher("--forecasts", tmp_path / "f", "--batch-rows", "50")
    parquet = ParquetForecasts(tmp_path / "f")
    with RedisForecasts(publisher.server.url, timeout_s=10) as source:
        users = [f"üser-{number}" for number in range(400)]
        assert [source.find(user) for user in users] == [parquet.find(user) for user in users]
        assert source.find("somebody else") is None
    assert source.counts.found == len(parquet) < 400


def test_numbers_and_texts_are_different_users(publisher: Publisher, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([row(7, 70)]), tmp_path / "a.parquet")
    publisher("--forecasts", tmp_path / "a.parquet")
    with RedisForecasts(publisher.server.url, timeout_s=10) as source:
        found = source.find(7)
        assert found is not None
        assert found.advertisers[0].advertiser_id == 70
        assert source.find("7") is None


def test_activate_switches_to_a_version_and_back(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    first = publisher("--forecasts", yesterday)
    assert publisher.first_advertisers() == {100}
    second = publisher("--forecasts", today, "--keep-active")
    assert (second["active"], second["previous"]) == (False, first["version"])
    assert publisher.first_advertisers() == {100}
    publisher("--activate", second["version"])
    assert publisher.first_advertisers() == {200}
    assert [item["active"] for item in publisher("--list")] == [False, True]
    back = publisher("--activate", first["version"])
    assert (back["previous"], back["bundle_ids"]) == (second["version"], ["bundle-1"])
    assert publisher.first_advertisers() == {100}
    # The same files again: nothing is written, and readers switch.
    before = publisher.server.client().dbsize()
    again = publisher("--forecasts", today)
    assert (again["version"], again["already_there"]) == (second["version"], True)
    assert publisher.server.client().dbsize() == before
    assert publisher.first_advertisers() == {200}


def test_the_summary_is_a_table(publisher: Publisher, yesterday: Path) -> None:
    lines = publisher.text("--forecasts", yesterday).splitlines()
    rows = dict(line.rsplit(maxsplit=1) for line in lines)
    assert (rows["users"], rows["bundles"]) == ("3,000", "bundle-1")
    assert "3,000" in publisher.text("--list")


def test_files_without_a_forecast_change_nothing(
    publisher: Publisher, yesterday: Path, tmp_path: Path
) -> None:
    publisher("--forecasts", yesterday)
    empty = write_forecasts(tmp_path / "e.parquet", [row("u", advertiser_ids=[], log_probs=[])])
    assert "no forecast in these files" in publisher.error("--forecasts", empty)
    missing = publisher.error("--forecasts", tmp_path / "nowhere")
    assert "nowhere: no such file or directory" in missing
    (tmp_path / "text.parquet").write_text("text")
    text = publisher.error("--forecasts", tmp_path / "text.parquet")
    assert "text.parquet: not Parquet forecasts" in text
    assert publisher.first_advertisers() == {100}


def test_readers_see_one_version_or_the_other(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    publisher("--forecasts", yesterday)
    seen: list[int] = []
    stop = threading.Event()
    with RedisForecasts(publisher.server.url, timeout_s=10, refresh_s=0.02) as source:

        def read() -> None:
            while not stop.is_set():
                found = source.find(f"user-{random.randrange(USERS)}")
                seen.append(0 if found is None else found.advertisers[0].advertiser_id)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            publisher("--forecasts", today, "--batch-rows", "50")
            await_true(lambda: seen[-1] == 200)
        finally:
            stop.set()
            reader.join()
    assert set(seen) == {100, 200}
    assert seen == sorted(seen)
