"""The Parquet files of stored forecasts: one file, a directory, or the files of a manifest.

``adprior bulk`` writes a ``_manifest.json`` into its directory, and replaces it in one step when a
day's files are complete. Files that it does not list are incomplete or obsolete. Its name begins
with ``_`` so that tools that read the directory as Parquet ignore it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from adprior_runtime.errors import InvalidInputError

MANIFEST: Final = "_manifest.json"
KEPT: Final = "_manifests"
"""Directory of earlier manifests; their paths are relative to its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastFiles:
    """The Parquet files of one set of forecasts.

    Attributes:
        files: The files.
        names: The path of each below the directory.
        manifest: The manifest that lists them; None without a manifest.
        revision: Changes when the manifest changes.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    manifest: Path | None = None
    revision: tuple[int, ...] = ()


def list_forecast_files(path: Path) -> ForecastFiles:
    """Return the files to read.

    Args:
        path: A Parquet file, a manifest, or a directory. A directory without a manifest is
            searched for ``*.parquet``, except names that begin with ``.`` or ``_``.

    Raises:
        InvalidInputError: Nothing is found, or the manifest is malformed or lists a missing file.
    """
    if (manifest := find_manifest(path)) is not None:
        return _listed(manifest)
    if path.is_dir():
        return _searched(path)
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such file or directory")
    return ForecastFiles(files=(path,), names=(path.name,))


def find_manifest(path: Path) -> Path | None:
    """Return the manifest of a path, None without one."""
    if path.is_dir():
        manifest = path / MANIFEST
        return manifest if manifest.is_file() else None
    return path if path.suffix == ".json" else None


def read_revision(manifest: Path) -> tuple[int, ...]:
    """Return a value that changes when a manifest is replaced; empty without a manifest."""
    try:
        found = manifest.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _searched(path: Path) -> ForecastFiles:
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.parquet"))
    kept = [name for name in names if not any(part[0] in "._" for part in name.split("/"))]
    if not kept:
        raise InvalidInputError(f"{path}: found no *.parquet and no {MANIFEST}")
    return ForecastFiles(files=tuple(path / name for name in kept), names=tuple(kept))


def _listed(manifest: Path) -> ForecastFiles:
    revision = read_revision(manifest)  # before reading: a change in between is seen later
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InvalidInputError(f"{manifest}: {reason}") from error
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidInputError(f"{manifest}: found no list `files`")
    names = [_name(entry, manifest) for entry in entries]
    top = manifest.parent.parent if manifest.parent.name == KEPT else manifest.parent
    for name in names:
        if not (top / name).is_file():
            raise InvalidInputError(f"{manifest}: lists {name}, which is missing")
    files = tuple(top / name for name in names)
    return ForecastFiles(files=files, names=tuple(names), manifest=manifest, revision=revision)


def _name(entry: Any, manifest: Path) -> str:
    if isinstance(entry, dict):
        entry = entry.get("path")
    if not isinstance(entry, str) or not entry:
        raise InvalidInputError(f"{manifest}: files: expected paths, or objects with a `path`")
    path = PurePosixPath(entry)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidInputError(f"{manifest}: files: found {entry}, expected a path below it")
    return entry
