"""Checks that version directories are complete, unchanged, and all of one bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from adprior_runtime.bundle import (
    ENGINE_FILES,
    INTERESTS_DIRECTORY,
    MANIFEST,
    MODEL_FILES,
    Manifest,
    check_seal,
    hash_file,
)
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository.checks.findings import Finding, Level


def bundle_directory(repository: Path, model: str) -> Path:
    """Return the directory with a model's part of the bundle."""
    return repository / model / "1" / "bundle"


def read_manifest(repository: Path, model: str) -> Manifest | None:
    """Return a model's manifest; None if it is missing or cannot be read."""
    try:
        return Manifest.load(bundle_directory(repository, model) / MANIFEST)
    except ArtefactError:
        return None


def check_bundles(repository: Path, level: Level, *, serves_engine: bool) -> Iterator[Finding]:
    """Check every model's manifest, and at the full level the hash of each file.

    A repository for TensorRT-LLM does not need the files of the engine in its bundle.
    """
    manifests: dict[str, Manifest] = {}
    hashes: dict[tuple[int, int], str] = {}
    for model in MODEL_FILES:
        if not (repository / model).is_dir():
            continue  # the check of the layout reports it
        path = bundle_directory(repository, model) / MANIFEST
        place = str(path.relative_to(repository))
        try:
            manifests[model] = Manifest.load(path)
            check_seal(path)
        except ArtefactError as error:
            finding = Finding.from_error(place, error, path, "the bundle's manifest")
            yield replace(finding, may_pass=not path.exists())
        if level is Level.FULL and model in manifests:
            own = () if serves_engine else ENGINES[manifests[model].engine].files
            optional = {*ENGINE_FILES, INTERESTS_DIRECTORY} - set(own)
            yield from _check_files(repository, model, manifests[model], optional, hashes)
    yield from _check_same(manifests)


def _check_same(manifests: Mapping[str, Manifest]) -> Iterator[Finding]:
    """Check that all models have the manifest that most of them have."""
    texts = {model: manifest.to_json() for model, manifest in manifests.items()}
    if len(set(texts.values())) < 2:
        return
    (most_common, _), *_ = Counter(texts.values()).most_common(1)
    usual = next(model for model, text in texts.items() if text == most_common)
    for model, text in texts.items():
        if text != most_common:
            yield Finding(
                f"{model}/1/bundle/{MANIFEST}",
                f"the manifest of bundle {manifests[model].bundle_id}",
                f"that of {usual}, {manifests[usual].bundle_id}: all models share one bundle",
                may_pass=True,
            )


def _check_files(
    repository: Path,
    model: str,
    manifest: Manifest,
    optional: set[str],
    hashes: dict[tuple[int, int], str],
) -> Iterator[Finding]:
    directory = bundle_directory(repository, model)
    for needed in MODEL_FILES[model]:
        names = [name for name in manifest.files if name == needed or name.startswith(f"{needed}/")]
        if not names and needed not in optional:
            place = str((directory / MANIFEST).relative_to(repository))
            yield Finding(place, f"no hash of {needed}", f"its hash: {model} loads it")
        for name in names:
            path = directory / name
            place = str(path.relative_to(repository))
            if not path.is_file():
                if name not in optional:
                    yield Finding(place, "no such file", f"this file: {model} loads it")
                continue
            stat = path.stat()
            key = (stat.st_dev, stat.st_ino)  # models share files by hard links
            if key not in hashes:
                hashes[key] = hash_file(path)
            if hashes[key] != manifest.files[name]:
                yield Finding(
                    place,
                    f"sha256 {hashes[key][:12]}…",
                    f"{manifest.files[name][:12]}…, as the manifest says: corrupt or swapped",
                )
