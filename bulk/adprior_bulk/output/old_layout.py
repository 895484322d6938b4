"""Directories of earlier versions: their files move to where other tools pass them over.

Those had ``manifest.json`` and ``date=…/shard=…/VERSION-….parquet``, of two versions, beside one
another: whoever read the directory as Parquet stopped at the manifest, or counted users twice.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from adprior_bulk.output.manifest import VERSIONS, DataFile, Manifest
from adprior_client.stored.parquet_files import KEPT, OLD_MANIFEST
from adprior_runtime.errors import InvalidInputError

_PARTITION: Final = "date="


def adopt_old_layout(directory: Path) -> None:
    """Move an output of an earlier version to today's layout; others are left alone.

    Readers find the table at every moment, and a kill loses nothing: this begins again with the
    next run. What unfinished runs of that version left is removed.

    Raises:
        InvalidInputError: Its manifest is none of ours, or a file that it names is missing.
    """
    old = directory / OLD_MANIFEST
    if old.is_file():
        _adopt(directory, old)
    for shard in directory.glob(f"{_PARTITION}*/shard=*"):
        shutil.rmtree(shard, ignore_errors=True)
    for date in directory.glob(f"{_PARTITION}*"):
        if not any(date.iterdir()):
            date.rmdir()


def _adopt(directory: Path, old: Path) -> None:
    current = Manifest.read(old)
    kept = sorted((directory / KEPT).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept:
        try:
            _moved(directory, Manifest.read(path)).keep(directory)
        except FileNotFoundError:
            path.unlink()  # a version without its files is no way back
    try:
        _moved(directory, current).publish(directory)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{old}: lists {error.filename}, which is missing") from error
    old.unlink()


def _moved(directory: Path, manifest: Manifest) -> Manifest:
    """Return a manifest whose files are at their new places, too."""
    return replace(manifest, files=tuple(_move(directory, file) for file in manifest.files))


def _move(directory: Path, file: DataFile) -> DataFile:
    if not file.path.startswith(_PARTITION):
        return file
    path = f"{VERSIONS}/{file.path.removesuffix('.parquet')}.forecasts"
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    if not (directory / path).exists():
        _link(directory / file.path, directory / path)
    return replace(file, path=path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        fresh = target.with_name(f".{target.name}")
        shutil.copy2(source, fresh)
        fresh.replace(target)
