from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_client import Forecast, ForecastSource, ParquetForecasts, Source
from adprior_client.stored.forecast_time import CLOCK_SKEW
from adprior_client.stored.parquet_files import MANIFEST
from adprior_runtime.errors import InvalidInputError
from support.processes import await_true

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)


def _row(user_id: Any, as_of: Any, advertiser_id: int) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "as_of": as_of,
        "advertiser_ids": [advertiser_id, 8],
        "log_probs": [-0.5, -1.5],
        "exact": True,
        "missing_mass": 0.25,
        "bundle_id": "b",
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_latest_forecast_of_a_user_is_found(tmp_path: Path) -> None:
    rows = [
        _row("u1", datetime(2024, 5, 31, 6, tzinfo=UTC), 7),
        _row("u1", datetime(2024, 5, 30, 6, tzinfo=UTC), 6),
        _row("u2", datetime(2024, 5, 30, 12, tzinfo=UTC), 5),
    ]
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    assert isinstance(source, ForecastSource)
    assert len(source) == 2
    found = source.find("u1")
    assert found is not None
    assert [(a.advertiser_id, a.log_prob) for a in found.advertisers] == [(7, -0.5), (8, -1.5)]
    assert (found.source, found.made_at, found.bundle_id) == (
        Source.STORED,
        datetime(2024, 5, 31, 6, tzinfo=UTC),
        "b",
    )
    assert source.find("u3") is None
    assert source.find(1) is None


def test_a_partitioned_directory_is_one_source(tmp_path: Path) -> None:
    _write(tmp_path / "date=2024-05-30" / "shard=0" / "a.parquet", [_row(1, date(2024, 5, 30), 7)])
    _write(tmp_path / "date=2024-05-31" / "shard=0" / "a.parquet", [_row(1, date(2024, 5, 31), 9)])
    source = ParquetForecasts(tmp_path)
    found = source.find(1)
    assert found is not None
    assert found.advertisers[0].advertiser_id == 9
    assert found.made_at == datetime(2024, 5, 31, tzinfo=UTC)


def test_a_logged_forecast_is_read_back(tmp_path: Path) -> None:
    first = ParquetForecasts(_write(tmp_path / "a.parquet", [_row("u", NOON, 7)])).find("u")
    assert first is not None
    row = first.to_log(user_id="u")
    again = ParquetForecasts(_write(tmp_path / "b.parquet", [row])).find("u")
    assert isinstance(again, Forecast)
    assert again.advertisers == first.advertisers


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"f\.parquet: not Parquet forecasts"):
        ParquetForecasts(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = [_row("u", NOON, 7)]
    del rows[0]["missing_mass"]
    with pytest.raises(InvalidInputError, match="no column missing_mass; found user_id, as_of"):
        ParquetForecasts(_write(tmp_path / "f.parquet", rows))


def test_the_latest_of_many_forecasts_is_found_in_any_order(tmp_path: Path) -> None:
    shuffle = random.Random(5)
    latest: dict[str, tuple[datetime, int]] = {}
    rows = []
    for number in range(3000):
        user_id = f"u{shuffle.randrange(900)}"
        as_of = NOON + timedelta(minutes=shuffle.randrange(50))
        rows.append(_row(user_id, as_of, 100 + number))
        if user_id not in latest or as_of >= latest[user_id][0]:
            latest[user_id] = (as_of, 100 + number)
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    assert len(source) == len(latest)
    for user_id, (as_of, advertiser_id) in latest.items():
        found = source.find(user_id)
        assert found is not None
        assert (found.made_at, found.advertisers[0].advertiser_id) == (as_of, advertiser_id)


def test_users_with_the_same_checksum_are_distinct(tmp_path: Path) -> None:
    # CRC-32 of "splumless" and "sbuckeroo" is the same.
    rows = [_row("plumless", NOON, 1), _row("buckeroo", NOON, 2)]
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    found = {user: source.find(user) for user in ("plumless", "buckeroo")}
    assert [item and item.advertisers[0].advertiser_id for item in found.values()] == [1, 2]
    assert len(source) == 2


def test_empty_rows_and_ids_of_other_types_are_not_found(tmp_path: Path) -> None:
    rows = [_row(7, NOON, 1), _row(8, NOON, 1) | {"advertiser_ids": [], "log_probs": []}]
    rows += [_row(None, NOON, 3)]
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    assert source.find(7) is not None
    for other in (8, "7", True, 7.0, None):
        assert source.find(other) is None  # type: ignore[arg-type]


def test_a_forecast_from_the_future_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    good, ahead = now - timedelta(days=1), now + CLOCK_SKEW / 2
    rows = [
        _row("hidden", good, 7),
        _row("hidden", now + timedelta(days=60 * 365), 9),
        _row("alone", now + 2 * CLOCK_SKEW, 9),
        _row("skewed", good, 7),
        _row("skewed", ahead, 8),
    ]
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    assert (_first(source, "hidden"), _first(source, "skewed")) == (7, 8)
    assert source.find("alone") is None
    assert (source.from_future, len(source)) == (2, 2)
    assert "2 rows lie in the future" in caplog.text


def test_a_forecast_for_today_is_accepted(tmp_path: Path) -> None:
    tomorrow = datetime.combine(datetime.now(UTC).date(), time_of_day(), UTC) + timedelta(days=1)
    rows = [
        _row("today", tomorrow - timedelta(microseconds=1), 7),
        _row("milliseconds", tomorrow - timedelta(milliseconds=1), 8),
        _row("two days on", tomorrow + timedelta(days=2, microseconds=-1), 9),
    ]
    source = ParquetForecasts(_write(tmp_path / "f.parquet", rows))
    assert (_first(source, "today"), _first(source, "milliseconds")) == (7, 8)
    assert source.find("two days on") is None


# --- a manifest -----------------------------------------------------------------------------------
def _commit(place: Path, day: int, advertiser_id: int, users: int = 50) -> list[str]:
    """Write a day's files and a manifest that lists them, as ``adprior bulk`` does."""
    names = [f"date=2024-05-{day:02}/shard={shard:04}/v{day}.parquet" for shard in range(2)]
    for shard, name in enumerate(names):
        rows = [_row(f"u{number}", NOON, advertiser_id) for number in range(shard, users, 2)]
        _write(place / name, rows)
    files = [{"path": name, "rows": users // 2} for name in names]
    _manifest(place, json.dumps({"format": 1, "files": files}))
    return names


def _manifest(place: Path, content: str) -> None:
    (place / ".manifest.json.new").write_text(content)
    (place / ".manifest.json.new").replace(place / MANIFEST)


def _first(source: ParquetForecasts, user_id: str = "u1") -> int:
    found = source.find(user_id)
    assert found is not None
    return found.advertisers[0].advertiser_id


def test_only_files_of_the_manifest_are_read(tmp_path: Path) -> None:
    _commit(tmp_path, 30, 7)
    later = _row("u1", NOON + timedelta(days=1), 9)
    _write(tmp_path / "date=2024-05-31" / "shard=0000" / "unfinished.parquet", [later])
    assert _first(ParquetForecasts(tmp_path)) == 7
    assert _first(ParquetForecasts(tmp_path / MANIFEST)) == 7


def test_a_new_manifest_is_followed_while_a_client_reads(tmp_path: Path) -> None:
    old = _commit(tmp_path, 30, 7)
    source = ParquetForecasts(tmp_path, refresh_s=0.01)
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(_first(source, f"u{random.randrange(50)}"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        _commit(tmp_path, 31, 9)
        for name in old:
            (tmp_path / name).unlink()
        await_true(lambda: bool(seen) and seen[-1] == 9)
    finally:
        stop.set()
        reader.join()
    assert set(seen) <= {7, 9}
    assert seen == sorted(seen)
    assert len(source) == 50


@pytest.mark.parametrize(
    "content",
    ["{", '{"files": []}', '{"files": ["gone.parquet"]}', '{"files": [{"path": "bad.parquet"}]}'],
)
def test_an_unreadable_manifest_changes_nothing(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adprior_client.stored.parquet_source._RETRY_S", 0.05)
    _commit(tmp_path, 30, 7)
    source = ParquetForecasts(tmp_path, refresh_s=0.01)
    (tmp_path / "bad.parquet").write_text("no Parquet")
    _manifest(tmp_path, content)

    def has_complained() -> bool:
        assert _first(source) == 7
        return "new stored forecasts cannot be read" in caplog.text

    await_true(has_complained)
    _commit(tmp_path, 31, 9)
    await_true(lambda: _first(source) == 9)
    (tmp_path / MANIFEST).unlink()
    time.sleep(0.02)
    assert _first(source) == 9
