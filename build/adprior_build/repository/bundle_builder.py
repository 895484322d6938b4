"""Makes bundles: from a checkpoint, or from another bundle with a new catalogue or head."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adprior_build.checkpoints.checkpoint import hash_checkpoint
from adprior_build.onnx_graph.parity import Parity
from adprior_build.provenance import RUN_KEY
from adprior_build.repository.bundle_catalogues import (
    add_catalogue,
    add_interests,
    read_bundle_catalogue,
)
from adprior_build.repository.language_model import add_language_model
from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    CATALOGUE_FILE,
    CHECKPOINT_SHA256,
    HEAD_FILE,
    INTERESTS_DIRECTORY,
    INTERESTS_FILE,
    MANIFEST,
    POPULARITY_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
    Manifest,
    hash_file,
)
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.repository.checks.coherence import check_coherence


def fill_from_checkpoint(
    directory: Path,
    checkpoint: Path,
    catalogue_path: Path | None,
    head: Path | None,
    commands: Sequence[str],
    precision: str = "fp32",
    device: str = "cpu",
    interests_path: Path | None = None,
    **settings: Any,
) -> Parity | None:
    """Make a bundle in an empty directory.

    Args:
        directory: The empty directory.
        checkpoint: A checkpoint of ``adprior train``.
        catalogue_path: The advertisers; None takes the checkpoint's.
        head: A fitted prior head; None writes one that changes nothing.
        commands: The commands to record: those before the training, then the build.
        precision: How the bundle stores the model's matrices, one of the engine's in
            `ENGINE_PRECISIONS`.
        device: Where the engine is compared with the checkpoint.
        interests_path: The interests; None takes the checkpoint's, if any.
        settings: Fields of the manifest: ``forecast_k``, ``beam_width``, ``origin``, ``engine``.
            A bundle does not contain a compiled engine.

    Returns:
        The difference between engine and checkpoint; None for a compiled engine.
    """
    record = checkpoint / "training.json"
    if not record.is_file():
        raise InvalidInputError(
            f"{checkpoint}: not a checkpoint of `adprior train` (no {record.name})"
        )
    training = _read_training(record) | {CHECKPOINT_SHA256: hash_checkpoint(checkpoint)}
    for name in (TOKENIZER_FILE, PROMPT_FILE, POPULARITY_FILE):
        link_or_copy(checkpoint / name, directory / name, link=False)
    catalogue = read_bundle_catalogue(catalogue_path or checkpoint / CATALOGUE_FILE, directory)
    commands = (*commands[:-1], training["command"], *commands[-1:])
    manifest = Manifest(bundle_id="", training=training, commands=commands, **settings)
    manifest = add_catalogue(directory, catalogue, manifest)
    taught = checkpoint / INTERESTS_FILE
    if interests_path is not None or taught.is_file():
        manifest = add_interests(directory, interests_path or taught, manifest)
    parity = None
    if ENGINES[manifest.engine].is_in_bundle:
        manifest, parity = add_language_model(checkpoint, directory, manifest, precision, device)
    _add_head(directory, head, manifest)
    _seal(directory, manifest)
    return parity


def fill_from_bundle(
    directory: Path,
    source: Bundle,
    catalogue_path: Path | None,
    head: Path | None,
    commands: Sequence[str],
    interests_path: Path | None = None,
    **settings: Any,
) -> None:
    """Make a bundle in an empty directory from another one; takes seconds and no torch.

    Args:
        directory: The empty directory.
        source: The bundle to start from.
        catalogue_path: New advertisers; None keeps the source's.
        head: A new prior head; None keeps the source's, and writes one that changes nothing anew.
        commands: Commands to add to the manifest's.
        interests_path: New interests; None keeps the source's, if any.
        settings: Fields of the manifest that change.
    """
    is_outdated, is_identity = (False, False) if head is not None else _describe_head(source)
    check_coherence(source, with_head=head is None and not is_outdated)
    for name in source.manifest.files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source.directory / name, directory / name)
    is_changed = any(path is not None for path in (catalogue_path, interests_path, head))
    if not (is_changed or is_outdated or settings):  # the same bundle, elsewhere
        link_or_copy(source.directory / MANIFEST, directory / MANIFEST)
        return
    commands = (*source.manifest.commands, *commands)
    manifest = replace(source.manifest, commands=commands, **settings)
    if catalogue_path is not None:
        for name in (TRIE_DIRECTORY, ADVERTISERS_DIRECTORY):
            shutil.rmtree(directory / name)
        (directory / CATALOGUE_FILE).unlink()
        catalogue = read_bundle_catalogue(catalogue_path, directory)
        manifest = add_catalogue(directory, catalogue, manifest)
    if interests_path is not None:
        if source.has_interests:
            shutil.rmtree(directory / INTERESTS_DIRECTORY)
            (directory / INTERESTS_FILE).unlink()
        manifest = add_interests(directory, interests_path, manifest)
    if head is not None or is_identity:
        (directory / HEAD_FILE).unlink()
        _add_head(directory, head, manifest)
    else:
        _require_head(source.path(HEAD_FILE), manifest)
    _seal(directory, manifest)


def _describe_head(source: Bundle) -> tuple[bool, bool]:
    """Return whether an earlier version wrote a bundle's head, and whether it changes nothing.

    Raises:
        EarlierHeadError: An earlier version wrote it, and it was fitted.
    """
    from adprior_runtime.head.head import EarlierHeadError, PriorHead  # noqa: PLC0415  onnxruntime

    try:
        return False, not PriorHead(source.path(HEAD_FILE)).is_fitted
    except EarlierHeadError as error:
        if error.is_fitted:
            raise
        return True, True


def _read_training(record: Path) -> dict[str, Any]:
    try:
        training = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{record}: not a training record: {error}") from error
    if not isinstance(training, dict) or not isinstance(training.get("command"), str):
        raise InvalidInputError(f"{record}: not a training record (no command)")
    training.pop(RUN_KEY, None)  # so the same command makes the same bundle, however long it took
    return training


def _add_head(directory: Path, head: Path | None, manifest: Manifest) -> None:
    from adprior_build.head.onnx_head import write_identity_head  # noqa: PLC0415  onnx

    if head is None:
        write_identity_head(
            directory / HEAD_FILE,
            forecast_k=manifest.forecast_k,
            engine=manifest.engine,
            catalogue_fingerprint=manifest.catalogue_fingerprint,
        )
    else:
        _require_head(head, manifest)
        link_or_copy(head, directory / HEAD_FILE, link=False)


def _require_head(path: Path, manifest: Manifest) -> None:
    """Refuse a head of another bundle before it is copied: the error names the user's file."""
    from adprior_runtime.head.head import PriorHead  # noqa: PLC0415  onnxruntime

    PriorHead(path).require_belongs(manifest)


def _seal(directory: Path, manifest: Manifest) -> None:
    """Hash every file and write the manifest."""
    files = {
        str(path.relative_to(directory)): hash_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    sealed = replace(manifest, files=files).sealed()
    (directory / MANIFEST).write_text(sealed.to_json(), encoding="utf-8")
