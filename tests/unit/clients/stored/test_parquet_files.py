from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adprior_client.stored.parquet_files import (
    MANIFEST,
    list_forecast_files,
    read_revision,
)
from adprior_runtime.errors import InvalidInputError


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_directory_is_searched_without_hidden_files(tmp_path: Path) -> None:
    for name in ("date=1/b.parquet", "a.parquet", ".a.parquet.new", "_tmp/c.parquet", ".x.parquet"):
        _touch(tmp_path / name)
    assert list_forecast_files(tmp_path).names == ("a.parquet", "date=1/b.parquet")


@pytest.mark.parametrize(
    "entries",
    [
        ["date=1/b.parquet", "a.parquet"],
        [{"path": "date=1/b.parquet", "rows": 3}, {"path": "a.parquet"}],
    ],
)
def test_a_manifest_lists_the_files(tmp_path: Path, entries: Any) -> None:
    for name in ("date=1/b.parquet", "a.parquet", "left-over.parquet"):
        _touch(tmp_path / name)
    (tmp_path / MANIFEST).write_text(json.dumps({"version": 1, "files": entries}))
    found = list_forecast_files(tmp_path)
    assert found.names == ("date=1/b.parquet", "a.parquet")
    assert found == list_forecast_files(tmp_path / MANIFEST)
    assert found.manifest == tmp_path / MANIFEST
    before = read_revision(found.manifest)
    assert before == found.revision != ()
    (tmp_path / "next").write_text(json.dumps({"files": ["a.parquet"]}))
    (tmp_path / "next").replace(found.manifest)
    assert read_revision(found.manifest) != before
    assert read_revision(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "found no list `files`"),
        ('{"files": [1]}', "expected paths"),
        ('{"files": [{"rows": 3}]}', "expected paths"),
        ('{"files": ["/etc/passwd"]}', "expected a path below it"),
        ('{"files": ["a/../../b.parquet"]}', "expected a path below it"),
        ('{"files": ["gone.parquet"]}', "lists gone.parquet, which is missing"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        list_forecast_files(tmp_path)
    assert MANIFEST in str(caught.value)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"found no \*\.parquet and no _manifest\.json"):
        list_forecast_files(tmp_path)
    with pytest.raises(InvalidInputError, match="nowhere: no such file or directory"):
        list_forecast_files(tmp_path / "nowhere")
