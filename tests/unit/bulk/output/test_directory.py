"""Tools that know no manifest read the output directory as its table; here pandas and pyarrow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pyarrow.dataset as ds
import pytest

from adprior_bulk.output.directory import drop_old_versions, show_table
from adprior_bulk.output.manifest import DEAD_LETTERS, VERSIONS, DataFile, Manifest
from adprior_bulk.output.tables import DEAD_LETTERS as LETTERS
from adprior_bulk.output.tables import FORECASTS, rows_to_table, write_table
from adprior_runtime.errors import InvalidInputError
from support.bulk_outputs import forecast_row, make_manifest

_SHARDS = 3
_USERS = [f"u{number}" for number in range(6)]


def _write(directory: Path, version: str) -> Manifest:
    """Write a version's files, and return the manifest that lists them."""
    files = []
    for shard in range(_SHARDS):
        path = f"{VERSIONS}/date=2024-05-01/shard={shard:04d}/{version}.forecasts"
        rows = [forecast_row(user, version) for user in _USERS[shard::_SHARDS]]
        write_table(rows_to_table(rows, FORECASTS), directory / path)
        files.append(DataFile(path=path, shard=shard, rows=len(rows)))
    return make_manifest(version, shards=_SHARDS, files=tuple(files))


def _publish(directory: Path, version: str) -> Manifest:
    """Publish a version as a run does, with its lock, record and dead letters."""
    manifest = _write(directory, version)
    (directory / ".lock").touch()
    (directory / "_runs" / version / "done").mkdir(parents=True)
    (directory / "_runs" / version / "done" / "0000.json").write_text("{}")
    letters = rows_to_table([("w", "INTERNAL", "it failed")], LETTERS)
    write_table(letters, directory / DEAD_LETTERS / "date=2024-05-01/shard=0000" / "a.letters")
    manifest.publish(directory)
    show_table(directory, manifest)
    drop_old_versions(directory, manifest, keep=2)
    return manifest


def _read(directory: Path) -> dict[str, str]:
    """Return each user's version as pandas reads it; fail if a user comes twice."""
    found: Any = pd.read_parquet(directory)
    assert not found["user_id"].duplicated().any()
    return dict(zip(found["user_id"], found["bundle_id"], strict=True))


def test_pandas_and_pyarrow_read_the_directory(tmp_path: Path) -> None:
    _publish(tmp_path, "first")
    _publish(tmp_path, "second")
    assert _read(tmp_path) == dict.fromkeys(_USERS, "second")
    dataset = ds.dataset(tmp_path, format="parquet")
    assert dataset.schema.names == FORECASTS.names
    assert dataset.count_rows() == len(_USERS)
    # Other tools use these patterns.
    for pattern in ("*.parquet", "**/*.parquet"):
        assert sorted(path.name for path in tmp_path.glob(pattern)) == [
            f"shard-{shard:04d}.parquet" for shard in range(_SHARDS)
        ]
    kept = list((tmp_path / VERSIONS).glob("date=*/shard=*/first.forecasts"))
    assert len(kept) == _SHARDS


def test_each_user_is_found_once_at_every_step_of_a_new_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(tmp_path, "first")
    seen: list[dict[str, str]] = []
    replace_file: Callable[..., Path] = Path.replace

    def replace_and_read(path: Path, target: Path) -> Path:
        done = replace_file(path, target)
        seen.append(_read(tmp_path))
        return done

    monkeypatch.setattr(Path, "replace", replace_and_read)
    _publish(tmp_path, "second")
    assert len(seen) > _SHARDS
    assert all(set(found) == set(_USERS) for found in seen)
    assert {version for found in seen for version in found.values()} == {"first", "second"}
    assert set(seen[-1].values()) == {"second"}


def test_the_next_run_completes_the_table_of_a_killed_one(tmp_path: Path) -> None:
    _publish(tmp_path, "first")
    manifest = _write(tmp_path, "second")
    manifest.publish(tmp_path)
    (tmp_path / ".shard-0000.parquet.1a2b3c4d").write_text("half")
    show_table(tmp_path, manifest)
    assert _read(tmp_path) == dict.fromkeys(_USERS, "second")
    assert not list(tmp_path.glob(".shard-*"))


def test_without_hard_links_the_files_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    manifest = _publish(tmp_path, "first")
    before = (tmp_path / "shard-0000.parquet").stat().st_ino
    show_table(tmp_path, manifest)
    assert (tmp_path / "shard-0000.parquet").stat().st_ino == before
    assert _read(tmp_path) == dict.fromkeys(_USERS, "first")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    manifest = _write(tmp_path, "first")
    (tmp_path / manifest.files[1].path).unlink()
    with pytest.raises(InvalidInputError, match="is missing, though the manifest lists it"):
        show_table(tmp_path, manifest)
