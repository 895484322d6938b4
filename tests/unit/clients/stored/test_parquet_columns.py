"""Column types of stored forecasts: read alike, or refused in one line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_client import ParquetForecasts
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_runtime.errors import InvalidInputError

GOOD: dict[str, Any] = {
    "user_id": pa.array(["u"]),
    "as_of": pa.array([datetime(2024, 5, 1, tzinfo=UTC)]),
    "advertiser_ids": pa.array([[7]]),
    "log_probs": pa.array([[-0.5]]),
    "exact": pa.array([True]),
    "missing_mass": pa.array([0.25]),
    "bundle_id": pa.array(["b"]),
    "advertiser_names": pa.array([["Acme"]]),
}


def _write(place: Path, name: str, column: Any) -> Path:
    path = place / "forecasts.parquet"
    pq.write_table(pa.table(GOOD | {name: column}), path)
    return path


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("user_id", pa.array([1.0]), "found double, expected text or integers"),
        ("user_id", pa.array([True]), "found bool, expected text or integers"),
        ("user_id", pa.array([b"u"]), "found binary, expected text or integers"),
        ("user_id", GOOD["as_of"], "found timestamp[us, tz=UTC], expected text or integers"),
        ("as_of", pa.array([1.0]), "found double, expected a time"),
        ("as_of", pa.array([1]), "found int64, expected a time"),
        ("advertiser_ids", pa.array([7]), "found int64, expected lists of integers"),
        ("advertiser_ids", pa.array(["7"]), "found string, expected lists of integers"),
        ("advertiser_ids", pa.array([[7.0]]), "found list<element: double>, expected lists of"),
        ("advertiser_ids", pa.array([[True]]), "found list<element: bool>, expected lists of"),
        ("advertiser_ids", pa.array([["7"]]), "found list<element: string>, expected lists of"),
        ("log_probs", pa.array([-0.5]), "found double, expected lists of numbers"),
        ("log_probs", pa.array([["x"]]), "found list<element: string>, expected lists of numbers"),
        ("exact", pa.array(["false"]), "found string, expected true or false"),
        ("exact", pa.array([1]), "found int64, expected true or false"),
        ("missing_mass", pa.array(["0.1"]), "found string, expected numbers"),
        ("missing_mass", pa.array([True]), "found bool, expected numbers"),
        ("bundle_id", pa.array([1]), "found int64, expected text"),
    ],
)
def test_client_and_publisher_refuse_a_column_of_a_wrong_type(
    tmp_path: Path, name: str, column: Any, message: str
) -> None:
    path = _write(tmp_path, name, column)
    for read in (ParquetForecasts, lambda path: ForecastReader(list_forecast_files(path))):
        with pytest.raises(InvalidInputError) as caught:
            read(path)
        assert f"forecasts.parquet: {name}: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("user_id", pa.array(["u"], pa.large_string())),
        ("user_id", pa.array(["u"], pa.string_view())),
        ("user_id", pa.array(["u"]).dictionary_encode()),
        ("advertiser_ids", pa.array([[7]], pa.large_list(pa.int32()))),
        ("advertiser_ids", pa.array([[7]], pa.list_(pa.int64(), 1))),
        ("log_probs", pa.array([[-0.5]], pa.list_(pa.float32()))),
        ("missing_mass", pa.array([0.25], pa.float32())),
        ("bundle_id", pa.array(["b"]).dictionary_encode()),
        ("advertiser_names", pa.array([["Acme"]], pa.list_(pa.large_string()))),
    ],
)
def test_equivalent_types_are_read_alike(tmp_path: Path, name: str, column: Any) -> None:
    path = _write(tmp_path, name, column)
    found = ParquetForecasts(path).find("u")
    assert found is not None
    [item] = found.advertisers
    assert (item.advertiser_id, item.name, item.log_prob) == (7, "Acme", -0.5)
    assert (found.missing_mass, found.bundle_id, found.exact) == (0.25, "b", True)
    [batch] = ForecastReader(list_forecast_files(path)).batches(10)
    assert batch.fields == [b"su"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()])
def test_users_may_be_numbers(tmp_path: Path, kind: Any) -> None:
    path = _write(tmp_path, "user_id", pa.array([7], kind))
    assert ParquetForecasts(path).find(7) is not None
    [batch] = ForecastReader(list_forecast_files(path)).batches(10)
    assert batch.fields == [b"i7"]


def test_names_of_a_wrong_type_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "advertiser_names", pa.array([[1]]))
    with pytest.raises(InvalidInputError, match=r"advertiser_names: found list.*expected lists of"):
        ParquetForecasts(path)


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        (pa.array([7]), pa.array([True]), "found bool, expected text or integers"),
        (pa.array([7]), pa.array([2.0]), "found double, expected text or integers"),
        (pa.array([7]), pa.array(["2"]), "found string, expected int64 as in the first file"),
        (pa.array(["7"]), pa.array([2]), "found int64, expected string as in the first file"),
    ],
)
def test_every_file_is_checked(tmp_path: Path, first: Any, other: Any, message: str) -> None:
    for name, users in (("a.parquet", first), ("b.parquet", other)):
        pq.write_table(pa.table(GOOD | {"user_id": users}), tmp_path / name)
    with pytest.raises(InvalidInputError, match=rf"b\.parquet: user_id: {message}"):
        ParquetForecasts(tmp_path)


def test_files_may_differ_in_width_or_be_empty(tmp_path: Path) -> None:
    empty = pa.table(GOOD | {"user_id": pa.nulls(1)}).slice(0, 0)
    for name, table in (
        ("a.parquet", pa.table(GOOD | {"user_id": pa.array([7])})),
        ("b.parquet", pa.table(GOOD | {"user_id": pa.array([8], pa.int32())})),
        ("c.parquet", empty),
    ):
        pq.write_table(table, tmp_path / name)
    source = ParquetForecasts(tmp_path)
    assert source.find(7) is not None
    assert source.find(8) is not None
