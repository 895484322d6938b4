"""Results that a killed run has computed already, kept on disk until the run's output is there.

A result is kept under a key that follows from everything it was computed from (`key_of`), and the
whole directory belongs to one identity: bundle, version, settings. So a run goes on from what an
earlier one has computed, and never takes what another bundle, log or version gave: it has other
keys or another identity, and what is kept under another identity is removed.

Results are gathered for some seconds and written as one ``.npz`` file, beside its place and then
renamed: a kill loses the last seconds. A file that is not as it was written is removed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.data.progress import say
from adprior_runtime.bundle import hash_file
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""One result: named arrays."""

_IDENTITY: Final = "kept.json"
"""Also what tells a directory of kept results."""
_INTERVAL_S: Final = 5.0
_DIGITS: Final = 16
"""The number of digits of a file's SHA-256 that its name has."""


def key_of(*parts: bytes | str) -> str:
    """Return a key that two results share only where all that they follow from is the same."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:32]


def add_work(parser: argparse.ArgumentParser) -> None:
    """Declare the option that says where results are kept."""
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where what is computed is kept until the output is there: a killed run goes on from "
        "it (OUTPUT.partial)",
    )


def partial_directory(work: Path | None, output: Path | None) -> Path | None:
    """Return where results are kept: beside the output unless said; None without an output."""
    if work is not None or output is None:
        return work
    return output.resolve().with_name(f"{output.name}.partial")


class KeptResults:
    """See the module.

    Args:
        directory: Where they are; None keeps nothing.
        interval_s: So long results are gathered before they are written.
    """

    def __init__(self, directory: Path | None, interval_s: float = _INTERVAL_S) -> None:
        self._directory, self._interval_s = directory, interval_s
        self._places: dict[str, Path] = {}
        self._names: dict[str, list[str]] = {}
        self._fresh: dict[str, Arrays] = {}
        self._written = time.monotonic()
        self._open: tuple[Path, Any] | None = None
        for path in [] if directory is None else sorted(directory.glob("*.npz")):
            self._index(path)

    def __len__(self) -> int:
        return len(self._places) + len(self._fresh)

    def get(self, key: str) -> Arrays | None:
        """Return a kept result, None where there is none."""
        if key in self._fresh:
            return self._fresh[key]
        if (path := self._places.get(key)) is None:
            return None
        file = self._file(path)
        return {name: file[f"{key}.{name}"] for name in self._names[key]}

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep a result, and write what was gathered when it is time to.

        Raises:
            InvalidInputError: It cannot be written.
        """
        if self._directory is None:
            return
        self._fresh[key] = arrays
        if time.monotonic() - self._written >= self._interval_s:
            self.write()

    def write(self) -> None:
        """Write what was gathered.

        Raises:
            InvalidInputError: It cannot be written.
        """
        if self._directory is None or not self._fresh:
            return
        members = {
            f"{key}.{name}": array
            for key, arrays in self._fresh.items()
            for name, array in arrays.items()
        }
        content = io.BytesIO()
        np.savez_compressed(content, **members)  # type: ignore[arg-type, unused-ignore]
        digest = hashlib.sha256(content.getbuffer()).hexdigest()[:_DIGITS]
        path = self._directory / f"{time.time_ns()}-{digest}.npz"
        try:
            with replace_file(path) as fresh:
                fresh.write_bytes(content.getbuffer())
        except OSError as error:
            raise InvalidInputError(
                f"{self._directory}: results cannot be kept: {error.strerror}"
            ) from error
        self._fresh.clear()
        self._index(path)
        self._written = time.monotonic()

    def _index(self, path: Path) -> None:
        """Learn what a file holds; one that is not as it was written is removed."""
        try:
            if hash_file(path)[:_DIGITS] != path.stem.partition("-")[2]:
                raise ValueError("not as it was written")
            with zipfile.ZipFile(path) as file:
                members = [name.removesuffix(".npy") for name in file.namelist()]
        except (ArtefactError, OSError, ValueError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            return
        for member in members:
            key, _, name = member.partition(".")
            if self._places.setdefault(key, path) == path:
                self._names.setdefault(key, []).append(name)

    def _file(self, path: Path) -> Any:
        """Return a file's arrays; the last one stays open, as results come in their order."""
        if self._open is None or self._open[0] != path:
            self._open = (path, np.load(path, allow_pickle=False))
        return self._open[1]


@contextmanager
def keep_results(
    directory: Path | None, identity: Mapping[str, Any], *, command: str
) -> Iterator[KeptResults]:
    """Yield what is kept in a directory; it vanishes when the block succeeds.

    Args:
        directory: Where to keep; None keeps nothing.
        identity: What all results follow from, beside their keys: what was kept under another one
            is removed.
        command: Whose; it begins what is told.

    Raises:
        InvalidInputError: The directory holds something else, or another process is at work there.
    """
    if directory is None:
        yield KeptResults(None)
        return
    marker = directory / _IDENTITY
    if directory.exists() and not directory.is_dir():
        raise InvalidInputError(f"{directory}: is a file, expected a directory or nothing")
    if directory.exists() and not marker.is_file() and any(directory.iterdir()):
        raise InvalidInputError(
            f"{directory}: exists and holds no kept results (no {_IDENTITY}); choose another --work"
        )
    with _prepared(directory, marker, to_json(identity, indent=2, sort_keys=True) + "\n"):
        kept = KeptResults(directory)
        if len(kept):
            say(command, f"goes on with {len(kept):,} results kept in {directory}")
        try:
            yield kept
        except BaseException:
            with suppress(InvalidInputError):  # the first fault is the one to tell
                kept.write()
            if len(kept):
                say(command, f"{len(kept):,} results are kept in {directory}; run it again")
            else:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _prepared(directory: Path, marker: Path, identity: str) -> Iterator[None]:
    """Hold a directory of one identity; a killed process lets go of it."""
    directory.mkdir(parents=True, exist_ok=True)
    with marker.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError(f"{directory}: another process is at work here") from error
        except OSError:
            pass  # a file system without locks
        lock.seek(0)
        if lock.read() != identity:
            for path in directory.glob("*.npz"):
                path.unlink()
            with suppress(OSError):  # a full disk: the next run keeps nothing of this one
                lock.truncate(0)
                lock.write(identity)
                lock.flush()
        yield
