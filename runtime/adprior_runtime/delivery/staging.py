"""The blobs that a pull has so far, in a directory beside its target: a killed pull continues.

::

    3fa9c2…             a complete blob, whose SHA-256 was checked
    3fa9c2….part        a blob that is being fetched: parts of 16 MiB, in any order
    3fa9c2….part-done-… the numbers of the parts that are in it

A part counts only after its number was written, which happens after its bytes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from adprior_runtime.bundle import hash_file
from adprior_runtime.delivery.version import Blob
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.files.hard_links import link_or_copy

PART_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` to before ``end`` of a blob; ``number`` counts its parts from 0."""

    blob: Blob
    number: int
    start: int
    end: int


class Staging:
    """The staging directory of a target; a context manager that holds its lock.

    Args:
        target: The directory that the pull makes.
    """

    def __init__(self, target: Path) -> None:
        self.directory = target.parent / f".{target.name}.pull"
        self._target = target
        self._descriptor = -1
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        """Make the directory and lock it.

        Raises:
            InvalidInputError: Another pull into the same target runs.
        """
        while True:
            try:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._descriptor = os.open(
                    self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                )
            except OSError as error:
                raise InvalidInputError(f"{self.directory}: {error.strerror}") from error
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._close()
                raise InvalidInputError(
                    f"{self._target}: another pull into this directory runs"
                ) from error
            if self._is_current():
                self._require_own()
                return self
            self._close()  # a pull that ended meanwhile removed it

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock; the blobs stay for the next attempt."""
        self._close()

    def keep_only(self, blobs: dict[str, Blob]) -> None:
        """Remove what another version left."""
        for path in self.directory.iterdir():
            if path.name.partition(".")[0] not in blobs:
                path.unlink()

    def path(self, blob: Blob) -> Path:
        """Return the place of a complete blob."""
        return self.directory / blob.sha256

    def has(self, blob: Blob) -> bool:
        """Return whether a blob is complete."""
        return self.path(blob).is_file()

    def adopt(self, source: Path, blob: Blob) -> None:
        """Take a local file, whose content was checked, as a blob."""
        fresh = self.part_path(blob)
        fresh.unlink(missing_ok=True)
        link_or_copy(source, fresh)
        self._rename(blob)

    def part_path(self, blob: Blob) -> Path:
        """Return the place of a blob that is being fetched."""
        return self.directory / f"{blob.sha256}.part"

    def missing_parts(self, blob: Blob) -> list[Part]:
        """Return the parts of a blob that must still be fetched."""
        done = self._done_parts(blob)
        starts = range(0, blob.size, PART_BYTES)
        parts = [
            Part(blob, number, start, min(start + PART_BYTES, blob.size))
            for number, start in enumerate(starts)
        ]
        return [part for part in parts if part.number not in done]

    def write_part(self, part: Part, data: bytes) -> None:
        """Write a part's bytes; several threads may write parts of one blob."""
        descriptor = os.open(self.part_path(part.blob), os.O_WRONLY | os.O_CREAT, 0o664)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], part.start + written)
        finally:
            os.close(descriptor)
        with self._writing, self._log(part.blob).open("a", encoding="ascii") as log:
            log.write(f"{part.number}\n")

    def complete(self, blob: Blob, where: str) -> None:
        """Check a blob that was fetched.

        Raises:
            ArtefactError: Its content is not what its name says; it is removed.
        """
        path = self.part_path(blob)
        if blob.size == 0:
            path.touch()
        found = hash_file(path)
        if found != blob.sha256:
            path.unlink()
            self._log(blob).unlink(missing_ok=True)
            raise ArtefactError(
                f"{where}: corrupt: sha256 {found[:12]}…, its name says {blob.sha256[:12]}…; "
                "try again, or repair it with `adprior push --force`"
            )
        self._rename(blob)

    def remove(self) -> None:
        """Remove the directory with everything in it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _rename(self, blob: Blob) -> None:
        self.part_path(blob).rename(self.path(blob))
        self._log(blob).unlink(missing_ok=True)

    def _log(self, blob: Blob) -> Path:
        # With the size in its name, a version of adprior with other parts does not misread it.
        return self.directory / f"{blob.sha256}.part-done-{PART_BYTES}"

    def _done_parts(self, blob: Blob) -> set[int]:
        if not self.part_path(blob).is_file():
            self._log(blob).unlink(missing_ok=True)
            return set()
        try:
            text = self._log(blob).read_text(encoding="ascii")
        except OSError:
            return set()
        # A kill may have cut the last line.
        return {int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")}

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.directory.stat())
        except FileNotFoundError:
            return False

    def _require_own(self) -> None:
        """Refuse a directory in which another user could have put blobs."""
        found = os.fstat(self._descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            self._close()
            raise InvalidInputError(
                f"{self.directory}: another user can write here; remove it, and pull again"
            )

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
