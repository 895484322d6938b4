from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.bundle import MANIFEST, Bundle, Manifest, hash_file
from adprior_runtime.contract import CONTRACT_VERSION
from adprior_runtime.errors import ArtefactError

FILES = {
    "tokenizer.json": b"tokens",
    "head.onnx": b"head",
    "trie/offsets.npy": b"offsets",
    "trie/leaf_nodes.npy": b"leaves",
    "trie.txt": b"not in the directory of that name",
}


def _manifest() -> Manifest:
    return Manifest(
        bundle_id="",
        engine="onnx",
        forecast_k=7,
        beam_width=9,
        prompt_head_ids=(2, 3),
        longest_name_tokens=5,
        catalogue_fingerprint="f2",
        catalogue_lineage=("f1", "f2"),
        files={name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
        origin="Zéphyr's log",
        training={"epochs": 3, "cut": None, "loss": [0.5, 0.25]},
        commands=("adprior train", "adprior build"),
    ).sealed()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A bundle of small files."""
    for name, content in FILES.items():
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "bundle" / MANIFEST).write_text(_manifest().to_json(), encoding="utf-8")
    return tmp_path / "bundle"


def _rewrite(directory: Path, **changed: Any) -> None:
    document = json.loads((directory / MANIFEST).read_text(encoding="utf-8")) | changed
    (directory / MANIFEST).write_text(json.dumps(document), encoding="utf-8")


def test_a_manifest_survives_its_file(directory: Path) -> None:
    assert Manifest.load(directory / MANIFEST) == _manifest()


def test_a_bundle_has_the_fields_of_its_manifest(directory: Path) -> None:
    bundle = Bundle.open(directory)
    assert bundle.manifest == _manifest()
    assert (bundle.manifest.bundle_id, bundle.manifest.forecast_k, bundle.manifest.engine) == (
        _manifest().bundle_id,
        7,
        "onnx",
    )
    assert bundle.manifest.catalogue_fingerprint == "f2"


def test_unknown_keys_are_refused(directory: Path) -> None:
    _rewrite(directory, beam_widht=32, colour="red")
    with pytest.raises(ArtefactError, match=r"manifest\.json: unknown keys \['beam_widht', 'col"):
        Bundle.open(directory)


@pytest.mark.parametrize("version", ["0", "2", "1.0"])
def test_another_contract_is_refused(directory: Path, version: str) -> None:
    _rewrite(directory, contract_version=version)
    message = f"made for contract {version}, this is {CONTRACT_VERSION}"
    with pytest.raises(ArtefactError, match=message):
        Bundle.open(directory)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"[]", b"null", b"7", b'"text"', b"{}", b'{"engine": "onnx"}'),
        b'{"bundle_id": "a", "files": null}',
        b'{"bundle_id": "a", "files": ["tokenizer.json"]}',
        b'{"bundle_id": "a", "files": {"tokenizer.json": 7}}',
        b'{"bundle_id": "a", "commands": null}',
        b'{"bundle_id": "a", "catalogue_lineage": 7}',
    ],
)
def test_a_wrong_manifest_is_refused_by_name(directory: Path, content: bytes) -> None:
    (directory / MANIFEST).write_bytes(content)
    with pytest.raises(ArtefactError, match=r"manifest\.json: "):
        Bundle.open(directory)


def test_unknown_products_are_one_line(directory: Path) -> None:
    _rewrite(directory, engine="torch", products="bf16x9")
    message = (
        "manifest: products is 'bf16x9', expected one of fp32, bf16-parts with the engine torch"
    )
    with pytest.raises(ArtefactError) as caught:
        Bundle.open(directory)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["../secret", "trie/../../secret", "/etc/hostname", ".."])
def test_a_file_outside_the_bundle_is_refused(directory: Path, name: str) -> None:
    secret = directory.parent / "secret"
    secret.write_bytes(b"secret")
    _rewrite(directory, files={name: hash_file(secret)})
    with pytest.raises(ArtefactError, match="impossible entry in files"):
        Bundle.open(directory)


def test_a_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtefactError, match=r"not a bundle \(no manifest\.json\)"):
            Bundle.open(place)


@pytest.mark.parametrize("name", FILES)
def test_a_corrupt_file_is_refused_by_name(directory: Path, name: str) -> None:
    (directory / name).write_bytes(FILES[name] + b".")
    with pytest.raises(ArtefactError, match=f"{directory / name}: corrupt or swapped: sha256"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(ArtefactError, match=f"{directory / name}: No such file"):
        Bundle.open(directory)


def test_only_the_named_files_are_checked(directory: Path) -> None:
    (directory / "head.onnx").write_bytes(b"corrupt")
    (directory / "trie.txt").unlink()
    for names in (["trie", "tokenizer.json"], []):
        assert Bundle.open(directory, names).manifest.bundle_id == _manifest().bundle_id
    with pytest.raises(ArtefactError, match=r"head\.onnx: corrupt"):
        Bundle.open(directory, iter(["tokenizer.json", "head.onnx"]))


def test_a_directory_asked_for_stands_for_all_its_files(directory: Path) -> None:
    (directory / "trie" / "leaf_nodes.npy").write_bytes(b"corrupt")
    with pytest.raises(ArtefactError, match=r"trie/leaf_nodes\.npy: corrupt"):
        Bundle.open(directory, ["trie"])


@pytest.mark.parametrize("name", ["model.onnx", "tri", "head", "offsets.npy", "trie/child"])
def test_an_absent_artefact_is_named(directory: Path, name: str) -> None:
    with pytest.raises(ArtefactError, match=f"the bundle has no {name}$"):
        Bundle.open(directory).path(name)


@pytest.mark.parametrize(
    "changed", [{"forecast_k": 8}, {"origin": "elsewhere"}, {"files": {}}, {"bundle_id": "abc"}]
)
def test_a_manifest_that_was_edited_is_refused(directory: Path, changed: dict[str, Any]) -> None:
    _rewrite(directory, **changed)
    with pytest.raises(ArtefactError, match=r"manifest\.json: corrupt or edited: its bundle_id is"):
        Bundle.open(directory)


def test_a_manifest_of_an_earlier_version_keeps_its_id(directory: Path) -> None:
    """It lacks the keys that were added later."""
    document = json.loads((directory / MANIFEST).read_text(encoding="utf-8")) | {"bundle_id": ""}
    del document["token_budget"], document["products"]
    text = json.dumps(document, indent=2) + "\n"
    document["bundle_id"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    (directory / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    manifest = Bundle.open(directory).manifest
    assert manifest.bundle_id == document["bundle_id"]
    assert manifest.products == "fp32"


def test_a_hash_is_the_files_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert hash_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(ArtefactError, match=r"nowhere: No such file"):
        hash_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle_id": 7},
        {"forecast_k": "20"},
        {"forecast_k": 0},
        {"forecast_k": 1001},
        {"max_top_k": 0},
        {"max_top_k": 1001},
        {"beam_width": -1},
        {"beam_width": 1001},
        {"token_budget": 1.5},
        {"search_mode": None},
        {"beam_width": True},
        {"products": "bf16"},
        {"products": 3},
        {"products": "bf16-parts", "engine": "onnx"},
        {"log_prob_error": -1e-5},
        {"log_prob_error": "1e-5"},
        {"log_prob_error": float("nan")},
    ],
)
def test_an_impossible_value_is_refused_by_name(directory: Path, changes: dict[str, Any]) -> None:
    document = json.loads((directory / MANIFEST).read_text()) | changes
    (directory / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtefactError, match=next(iter(changes))):
        Bundle.open(directory)
