"""Reads the version of a directory: finds and hashes its files, and checks the bundles in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from adprior_runtime.bundle import MANIFEST, REPOSITORY_MARKER, Manifest, check_seal, hash_file
from adprior_runtime.delivery.version import Blob, Kind, Version, check_name
from adprior_runtime.errors import ArtefactError, InvalidInputError

MARKERS: Final = {Kind.BUNDLE: MANIFEST, Kind.REPOSITORY: REPOSITORY_MARKER}
"""The file by which a directory is known."""
_COMPILED: Final = "__pycache__"
"""Python writes these directories where it runs; they belong to no artefact."""


def find_kind(directory: Path) -> Kind | None:
    """Return what a directory holds; None if it is neither a bundle nor a repository."""
    return next((kind for kind, file in MARKERS.items() if (directory / file).is_file()), None)


def require_kind(directory: Path) -> Kind:
    """Return what a directory holds; raise InvalidInputError if it is neither."""
    kind = find_kind(directory)
    if kind is None:
        raise InvalidInputError(
            f"{directory}: neither a bundle nor a model repository of `adprior build` "
            f"(no {' or '.join(MARKERS.values())})"
        )
    return kind


def scan_version(directory: Path, advance: Callable[[int], object]) -> Version:
    """Hash all files of a bundle or repository.

    Args:
        directory: The bundle or repository.
        advance: Called with the bytes of each file that was hashed.

    Raises:
        InvalidInputError: The directory is neither, or has files that cannot be delivered.
        ArtefactError: A file does not match its bundle's manifest.
    """
    kind = require_kind(directory)
    names, empty = list_files(directory)
    files = {}
    for name in names:
        path = directory / name
        files[name] = Blob(hash_file(path), path.stat().st_size)
        advance(files[name].size)
    manifests = [name for name in files if name.rpartition("/")[2] == MANIFEST]
    ids = {name: _check_bundle(directory, name, files) for name in manifests}
    return Version(
        kind=kind, bundle_id=ids[MARKERS[kind]], files=files, empty_directories=tuple(empty)
    )


def list_files(directory: Path) -> tuple[list[str], list[str]]:
    """Return the paths of all files and of all empty directories, sorted.

    Raises:
        InvalidInputError: A link to a directory, something not a file, or a path that the
            machines that pull could not make.
    """
    files: list[str] = []
    empty: list[str] = []
    for path, is_directory in _walk(directory):
        name = path.relative_to(directory).as_posix()
        try:
            check_name(name)
        except ValueError as error:
            raise InvalidInputError(f"{directory}: {error}") from error
        if not is_directory and not path.is_file():
            raise InvalidInputError(f"{path}: expected a file")
        (empty if is_directory else files).append(name)
    return sorted(files), sorted(empty)


def _walk(directory: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every file, and every directory that holds nothing."""
    for path in directory.iterdir():
        if not path.is_dir():
            yield path, False
        elif path.is_symlink():
            raise InvalidInputError(f"{path}: a link to a directory, expected the directory")
        elif path.name != _COMPILED:
            inside = list(_walk(path))
            yield from inside or [(path, True)]


def _check_bundle(directory: Path, name: str, files: dict[str, Blob]) -> str:
    """Compare the files that were hashed with the bundle's manifest; return the bundle's id."""
    path = directory / name
    manifest = Manifest.load(path)
    check_seal(path)
    above = name.removesuffix(MANIFEST)
    for file, expected in manifest.files.items():
        found = files.get(above + file)
        if found is not None and found.sha256 != expected:
            raise ArtefactError(
                f"{directory / above / file}: corrupt or swapped: sha256 {found.sha256[:12]}…, "
                f"the manifest says {expected[:12]}…"
            )
    return manifest.bundle_id
