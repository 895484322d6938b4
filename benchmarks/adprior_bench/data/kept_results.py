"""Results of an interrupted run, kept on disk until the run's output is complete.

Each result is a file, named by a key that covers everything it was computed from (`key_of`). All
results in a directory belong to one identity (bundle, version, settings); those of another one are
deleted. A file begins with the hash of its content: a damaged or incomplete one counts as missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.data.progress import say
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""One result: named arrays."""

IDENTITY_FILE: Final = "identity.json"
"""Its presence marks a directory of kept results; the process that uses them locks it."""
_SUFFIX: Final = ".result"
_HASH_BYTES: Final = 32


def key_of(*parts: bytes | str) -> str:
    """Return a key that is different for results of different inputs."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:32]


def partial_directory(work: Path | None, output: Path | None) -> Path | None:
    """Return the directory for results, by default beside the output; None without an output."""
    if work is not None or output is None:
        return work
    return output.resolve().with_name(f"{output.name}.partial")


class KeptResults:
    """The results in an existing directory; None keeps nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def __len__(self) -> int:
        return 0 if self._directory is None else len(list(self._directory.glob(f"*{_SUFFIX}")))

    def get(self, key: str) -> Arrays | None:
        """Return a kept result, None without one."""
        if self._directory is None:
            return None
        try:
            data = (self._directory / f"{key}{_SUFFIX}").read_bytes()
        except FileNotFoundError:
            return None
        content = data[_HASH_BYTES:]
        if hashlib.sha256(content).digest() != data[:_HASH_BYTES]:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep a result.

        Raises:
            InvalidInputError: It cannot be written.
        """
        if self._directory is None:
            return
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type, unused-ignore]
        content = buffer.getvalue()
        path = self._directory / f"{key}{_SUFFIX}"
        with _report_errors(self._directory), replace_file(path) as fresh:
            fresh.write_bytes(hashlib.sha256(content).digest() + content)


def reused_results(directory: Path) -> KeptResults:
    """Return the results in a directory that later runs use too; it is made if it is missing.

    Keys must cover everything that a result was computed from.

    Raises:
        InvalidInputError: The directory cannot be made, or is a file.
    """
    with _report_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    return KeptResults(directory)


@contextmanager
def keep_results(
    directory: Path | None, identity: Mapping[str, Any], *, command: str
) -> Iterator[KeptResults]:
    """Yield the results in a directory, which is deleted when the block succeeds.

    The identity is everything that all results depend on, apart from their keys. Messages begin
    with the command. Without a directory, nothing is kept.

    Raises:
        InvalidInputError: The directory holds something else, or another process uses it.
    """
    if directory is None:
        yield KeptResults(None)
        return
    _refuse_other_contents(directory)
    with _report_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory, to_json(identity, sort_keys=True)):
        kept = KeptResults(directory)
        if len(kept):
            say(command, f"continues with {len(kept):,} results kept in {directory}")
        try:
            yield kept
        except BaseException:
            if len(kept):
                say(command, f"{len(kept):,} results are kept in {directory}; run it again")
            else:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)


def _refuse_other_contents(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise InvalidInputError(f"{directory}: is a file, expected a directory or nothing")
    if (
        directory.exists()
        and not (directory / IDENTITY_FILE).is_file()
        and any(directory.iterdir())
    ):
        raise InvalidInputError(
            f"{directory}: exists and holds no kept results (no {IDENTITY_FILE}); "
            "choose another --work"
        )


@contextmanager
def _lock(directory: Path, identity: str) -> Iterator[None]:
    """Exclude other processes, and delete the results of another identity."""
    with _report_errors(directory):
        file = (directory / IDENTITY_FILE).open("a+b")
    with file:
        with _report_errors(directory):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidInputError(
                    f"{directory}: another process uses this directory"
                ) from error
            file.seek(0)
            if file.read() != identity.encode():
                for result in directory.glob(f"*{_SUFFIX}"):
                    result.unlink()
                file.truncate(0)
                file.write(identity.encode())
                file.flush()
        yield


@contextmanager
def _report_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInputError(f"{directory}: results cannot be kept: {error}") from error
