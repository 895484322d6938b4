from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_client import Forecast, ForecastSource, ParquetForecasts, Source
from adprior_runtime.errors import InvalidInputError

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


def test_the_latest_forecast_of_a_user_counts_with_its_age(tmp_path: Path) -> None:
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


def test_what_a_forecast_logs_is_read_back(tmp_path: Path) -> None:
    first = ParquetForecasts(_write(tmp_path / "a.parquet", [_row("u", NOON, 7)])).find("u")
    assert first is not None
    row = first.to_log(user_id="u")
    again = ParquetForecasts(_write(tmp_path / "b.parquet", [row])).find("u")
    assert isinstance(again, Forecast)
    assert again.advertisers == first.advertisers


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"f\.parquet: not Parquet forecasts"):
        ParquetForecasts(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = [_row("u", NOON, 7)]
    del rows[0]["missing_mass"]
    with pytest.raises(InvalidInputError, match="no column missing_mass; found user_id, as_of"):
        ParquetForecasts(_write(tmp_path / "f.parquet", rows))
