"""The files of a bundle or repository on this machine, hashed when asked for, once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from adprior_runtime.bundle import hash_file
from adprior_runtime.delivery.scan import find_kind, list_files
from adprior_runtime.delivery.version import Blob, Version


class LocalFiles:
    """The files in a directory; none if it holds neither a bundle nor a repository."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kind = find_kind(directory)
        self._names, self._empty = ([], []) if self._kind is None else list_files(directory)
        self._sizes = {name: (directory / name).stat().st_size for name in self._names}
        self._sha256 = cache(lambda name: hash_file(directory / name))

    def are(self, version: Version) -> bool:
        """Return whether the directory holds exactly a version."""
        return (
            self._kind is version.kind
            and set(self._empty) == set(version.empty_directories)
            and self._sizes == {name: blob.size for name, blob in version.files.items()}
            and all(self._sha256(name) == blob.sha256 for name, blob in version.files.items())
        )

    def find(self, wanted: dict[str, Blob]) -> Iterator[tuple[Path, Blob]]:
        """Yield each wanted blob that is here; only files of a fitting size are hashed.

        Args:
            wanted: Blobs by their SHA-256.
        """
        found: set[str] = set()
        sizes = {blob.size for blob in wanted.values()}
        for name in self._names:
            if self._sizes[name] in sizes:
                sha256 = self._sha256(name)
                if sha256 in wanted and sha256 not in found:
                    found.add(sha256)
                    yield self._directory / name, wanted[sha256]
