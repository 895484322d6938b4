from __future__ import annotations

import json
from pathlib import Path

import pytest

from adprior_bulk.output.directory import drop_old_versions
from adprior_bulk.output.manifest import DEAD_LETTERS as LETTERS_PLACE
from adprior_bulk.output.manifest import VERSIONS, DataFile, Manifest
from adprior_bulk.output.tables import DEAD_LETTERS, FORECASTS, rows_to_table, write_table
from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_client import ParquetForecasts
from adprior_client.stored.parquet_files import MANIFEST, list_forecast_files
from adprior_runtime.errors import InvalidInputError
from support.bulk_outputs import AS_OF, forecast_row, make_manifest


def _version(directory: Path, name: str, keep: int = 2) -> Manifest:
    """Publish a version of one file, beside a leftover of a killed run."""
    path = f"_versions/date=2024-05-01/shard=0000/{name}.forecasts"
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(name)
    (directory / path).with_name(f"{name}-leftover.forecasts").write_text("half")
    manifest = make_manifest(name, files=(DataFile(path=path, shard=0, rows=3),))
    manifest.publish(directory)
    drop_old_versions(directory, manifest, keep)
    return manifest


def _names(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("_versions/date=*/shard=*/*"))


def test_a_published_manifest_is_read_back(tmp_path: Path) -> None:
    assert Manifest.load(tmp_path) is None
    manifest = _version(tmp_path, "one")
    assert Manifest.load(tmp_path) == manifest
    assert manifest.files_of(0) == ["_versions/date=2024-05-01/shard=0000/one.forecasts"]
    assert manifest.files_of(1) == []


@pytest.mark.parametrize(("keep", "left"), [(1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_old_versions_and_leftovers_are_deleted(tmp_path: Path, keep: int, left: list[str]) -> None:
    for name in ("a", "b", "c"):
        _version(tmp_path, name, keep)
    assert _names(tmp_path) == left
    assert sorted(path.stem for path in (tmp_path / "_manifests").iterdir()) == left


def test_empty_partitions_are_deleted(tmp_path: Path) -> None:
    _version(tmp_path, "a", 1)
    other = "_versions/date=2024-05-02/shard=0000/b.forecasts"
    (tmp_path / other).parent.mkdir(parents=True)
    (tmp_path / other).write_text("b")
    second = make_manifest("b", files=(DataFile(path=other, shard=0, rows=1),))
    second.publish(tmp_path)
    drop_old_versions(tmp_path, second, 1)
    assert [path.name for path in tmp_path.glob("_versions/date=*")] == ["date=2024-05-02"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', "\xff"])
def test_a_foreign_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=MANIFEST):
        Manifest.load(tmp_path)


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    manifest = _version(tmp_path, "a")
    document = json.loads((tmp_path / MANIFEST).read_text()) | {"of_another_day": 1}
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    assert Manifest.load(tmp_path) == manifest


def test_clients_and_publishing_read_the_listed_files(tmp_path: Path) -> None:
    """The files have the required columns and types; dead letters and leftovers are not read."""
    shard, letters_shard = (
        f"{parent}/date=2024-05-01/shard=0000" for parent in (VERSIONS, LETTERS_PLACE)
    )
    rows = [forecast_row(user) for user in "uv"]
    letter = rows_to_table([("w", "INTERNAL", "it failed")], DEAD_LETTERS)
    for path, table in (
        (f"{shard}/a.forecasts", rows_to_table(rows, FORECASTS)),
        (f"{shard}/killed.forecasts", rows_to_table([forecast_row("x")], FORECASTS)),
        (f"{letters_shard}/a.letters", letter),
    ):
        write_table(table, tmp_path / path)
    empty = f"{shard.replace('0000', '0001')}/a.forecasts"
    write_table(FORECASTS.empty_table(), tmp_path / empty)
    files = [DataFile(path=f"{shard}/a.forecasts", shard=0, rows=2)]
    files += [DataFile(path=empty, shard=1, rows=0)]
    letters = DataFile(path=f"{letters_shard}/a.letters", shard=0, rows=1)
    make_manifest(files=tuple(files), dead_letters=(letters,)).publish(tmp_path)
    stored = ParquetForecasts(tmp_path)
    assert len(stored) == 2
    found = stored.find("u")
    assert found is not None
    assert [item.advertiser_id for item in found.advertisers] == [7, 2**40]
    assert (found.made_at, found.exact, found.bundle_id) == (AS_OF, True, "b")
    for place in (tmp_path, tmp_path / "_manifests" / "v.json"):
        reader = ForecastReader(list_forecast_files(place))
        assert [batch.fields for batch in reader.batches(8) if batch.rows] == [[b"su", b"sv"]]
