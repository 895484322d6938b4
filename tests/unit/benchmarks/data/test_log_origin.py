from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from adprior_bench.data.log_origin import compare_log, require_training_log
from adprior_runtime.bundle import Manifest, hash_file
from adprior_runtime.errors import InvalidInputError

Files = dict[str, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = {name: tmp_path / f"{name}.file" for name in ("events", "profiles", "columns")}
    for name, path in found.items():
        path.write_text(name)
    return found


def trained_on(files: Files, **inputs: Path | None) -> Manifest:
    """Return the manifest of a bundle trained on files; one that is None was not given."""
    recorded = {
        name: {"file": path.name, "sha256": hash_file(path)}
        for name, path in (files | inputs).items()
        if path is not None
    }
    return Manifest(bundle_id="b1", training={"training_users": 949, "inputs": recorded})


def test_a_moved_copy_of_the_training_log_is_accepted(files: Files, tmp_path: Path) -> None:
    manifest = trained_on(files)
    moved = shutil.copy(files["events"], tmp_path / "moved.file")
    origin = compare_log(manifest, Path(moved), files["profiles"], files["columns"])
    assert origin.is_known
    assert not origin.is_other
    assert origin.sentences(949) == []
    assert origin.to_json()["is_training_log"] is True


@pytest.mark.parametrize("other", ["events", "profiles"])
def test_the_refusal_of_another_log_names_both_files(
    files: Files, tmp_path: Path, other: str
) -> None:
    manifest = trained_on(files)
    changed = tmp_path / "changed.file"
    changed.write_text("others")
    given = files | {other: changed}
    with pytest.raises(InvalidInputError) as refused:
        require_training_log(manifest, *given.values(), other_log=False)
    message = str(refused.value)
    assert "\n" not in message
    assert f"{other} changed.file (sha256 {hash_file(changed)[:12]}" in message
    assert f"the model's {other}.file (sha256 {hash_file(files[other])[:12]}" in message
    assert "--other-log" in message


def test_missing_profiles_are_requested(files: Files) -> None:
    events, columns = files["events"], files["columns"]
    with pytest.raises(InvalidInputError, match="was trained on this log with profiles: give them"):
        require_training_log(trained_on(files), events, None, columns, other_log=False)


def test_an_accepted_other_log_is_reported(files: Files, tmp_path: Path) -> None:
    manifest = trained_on(files)
    files["events"] = tmp_path / "changed.file"
    files["events"].write_text("others")
    origin = require_training_log(manifest, *files.values(), other_log=True)
    (sentence,) = origin.sentences(28)
    assert "not the log that bundle b1 was trained on" in sentence
    assert "baselines learnt from 28 training users of this log, the model from 949" in sentence
    assert "look better than it is" in sentence
    assert origin.to_json()["is_training_log"] is False


@pytest.mark.parametrize(("model_had", "given"), [(True, False), (False, True)])
def test_profiles_on_one_side_only_are_another_log(
    files: Files, model_had: bool, given: bool
) -> None:
    manifest = trained_on(files, profiles=files["profiles"] if model_had else None)
    profiles = files["profiles"] if given else None
    origin = compare_log(manifest, files["events"], profiles, files["columns"])
    assert origin.is_other
    assert "none" in origin.differences[0]


def test_another_column_map_is_reported_but_accepted(files: Files) -> None:
    manifest = trained_on(files)
    files["columns"].write_text("other columns")
    origin = require_training_log(manifest, *files.values(), other_log=False)
    (sentence,) = origin.sentences(949)
    assert "the column map is another file" in sentence


@pytest.mark.parametrize("training", [{}, {"inputs": {}}])
def test_a_bundle_without_a_record_is_reported(files: Files, training: dict[str, Any]) -> None:
    manifest = Manifest(bundle_id="b1", training=training)
    origin = require_training_log(manifest, *files.values(), other_log=False)
    (sentence,) = origin.sentences(5)
    assert "does not record which log" in sentence
    assert origin.to_json()["is_training_log"] is None


def test_a_missing_file_is_named(files: Files) -> None:
    manifest = trained_on(files)
    with pytest.raises(InvalidInputError, match=r"nowhere.parquet: no such file"):
        compare_log(manifest, Path("nowhere.parquet"), files["profiles"], files["columns"])
