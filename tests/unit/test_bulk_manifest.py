from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adprior_bulk.manifest import MANIFEST, DataFile, Manifest, drop_old_versions
from adprior_runtime.errors import InvalidInputError


def _version(directory: Path, name: str, keep: int = 2) -> Manifest:
    """Publish a version of one file, with a leftover of a killed run beside it."""
    path = f"date=2024-05-01/shard=0000/{name}.parquet"
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(name)
    (directory / path).with_name(f"{name}-leftover.parquet").write_text("half")
    manifest = Manifest(
        version=name,
        request="r",
        date="2024-05-01",
        as_of="2024-05-01T00:00:00+00:00",
        made_at="2024-05-01T01:00:00+00:00",
        bundle_id="b",
        top_k=None,
        shards=1,
        files=(DataFile(path=path, shard=0, rows=3),),
    )
    manifest.publish(directory)
    drop_old_versions(directory, manifest, keep)
    return manifest


def _names(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("date=*/shard=*/*"))


def test_what_is_published_is_read_back(tmp_path: Path) -> None:
    assert Manifest.load(tmp_path) is None
    manifest = _version(tmp_path, "one")
    assert Manifest.load(tmp_path) == manifest
    assert manifest.files_of(0) == ["date=2024-05-01/shard=0000/one.parquet"]
    assert manifest.files_of(1) == []


@pytest.mark.parametrize(("keep", "left"), [(1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_versions_are_kept_and_leftovers_go(tmp_path: Path, keep: int, left: list[str]) -> None:
    for name in ("a", "b", "c"):
        _version(tmp_path, name, keep)
    assert _names(tmp_path) == left
    assert sorted(path.stem for path in (tmp_path / "_manifests").iterdir()) == left


def test_empty_partitions_go(tmp_path: Path) -> None:
    _version(tmp_path, "a", 1)
    other = "date=2024-05-02/shard=0000/b.parquet"
    (tmp_path / other).parent.mkdir(parents=True)
    (tmp_path / other).write_text("b")
    manifest = Manifest.load(tmp_path)
    assert manifest is not None
    second = replace(manifest, version="b", files=(DataFile(path=other, shard=0, rows=1),))
    second.publish(tmp_path)
    drop_old_versions(tmp_path, second, 1)
    assert [path.name for path in tmp_path.glob("date=*")] == ["date=2024-05-02"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', "\xff"])
def test_another_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=MANIFEST):
        Manifest.load(tmp_path)


def test_unknown_keys_of_the_format_are_let_pass(tmp_path: Path) -> None:
    manifest = _version(tmp_path, "a")
    document = json.loads((tmp_path / MANIFEST).read_text()) | {"of_another_day": 1}
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    assert Manifest.load(tmp_path) == manifest
