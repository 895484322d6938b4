"""Results of an interrupted run, kept on disk until the run's output is complete.

A result is kept under a key that covers everything it was computed from (`key_of`). All results in
a directory belong to one identity (bundle, version, settings); those of another one are deleted.
The results are rows of an SQLite database. They are committed every few seconds, so that a killed
process loses only the last seconds. A damaged result counts as missing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_bench.data.progress import say
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""One result: named arrays."""

FILE: Final = "kept.sqlite"
"""Its presence marks a directory of kept results."""
_INTERVAL_S: Final = 5.0
_IDENTITY_KEY: Final = "identity"


def key_of(*parts: bytes | str) -> str:
    """Return a key that is different for results of different inputs."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:32]


def add_work(parser: argparse.ArgumentParser) -> None:
    """Declare ``--work``."""
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="directory for intermediate results until the output is complete; a killed run "
        "continues from them (OUTPUT.partial)",
    )


def partial_directory(work: Path | None, output: Path | None) -> Path | None:
    """Return the directory for results, by default beside the output; None without an output."""
    if work is not None or output is None:
        return work
    return output.resolve().with_name(f"{output.name}.partial")


class KeptResults:
    """The results in a directory.

    Args:
        directory: An existing directory; None keeps nothing.
        interval_s: Time between commits.
    """

    def __init__(self, directory: Path | None, interval_s: float = _INTERVAL_S) -> None:
        self._directory, self._interval_s = directory, interval_s
        with _reported_errors(directory):
            self._database = _connect(":memory:" if directory is None else directory / FILE)
        self._committed = time.monotonic()

    def __len__(self) -> int:
        query = "SELECT count(*) FROM results WHERE key != ?"
        return int(self._database.execute(query, (_IDENTITY_KEY,)).fetchone()[0])

    def get(self, key: str) -> Arrays | None:
        """Return a kept result, None without one."""
        if (value := self._read(key)) is None:
            return None
        with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
            return dict(arrays)

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep a result.

        Raises:
            InvalidInputError: It cannot be written.
        """
        if self._directory is None:
            return
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type, unused-ignore]
        self._write(key, content.getvalue())
        if time.monotonic() - self._committed >= self._interval_s:
            self.commit()

    def commit(self) -> None:
        """Make sure that all results so far survive a kill.

        Raises:
            InvalidInputError: They cannot be written.
        """
        with _reported_errors(self._directory):
            self._database.commit()
        self._committed = time.monotonic()

    def lock(self, identity: str) -> None:
        """Exclude other processes until `close`, and delete the results of another identity.

        Raises:
            InvalidInputError: Another process uses the results, or they cannot be written.
        """
        with _reported_errors(self._directory):
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            if self._read(_IDENTITY_KEY) != identity.encode():
                self._database.execute("DELETE FROM results")
        self._write(_IDENTITY_KEY, identity.encode())
        self.commit()

    def close(self) -> None:
        """Release the directory."""
        self._database.close()

    def _read(self, key: str) -> bytes | None:
        query = "SELECT value, hash FROM results WHERE key = ?"
        row = self._database.execute(query, (key,)).fetchone()
        is_whole = row is not None and hashlib.sha256(row[0]).digest() == row[1]
        return row[0] if is_whole else None

    def _write(self, key: str, value: bytes) -> None:
        with _reported_errors(self._directory):
            self._database.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?)",
                (key, value, hashlib.sha256(value).digest()),
            )


@contextmanager
def keep_results(
    directory: Path | None, identity: Mapping[str, Any], *, command: str
) -> Iterator[KeptResults]:
    """Yield the results in a directory, which is deleted when the block succeeds.

    The identity is everything that all results depend on, beside their keys. Messages begin with
    the command. Without a directory, nothing is kept.

    Raises:
        InvalidInputError: The directory holds something else, or another process uses it.
    """
    if directory is None:
        yield KeptResults(None)
        return
    _refuse_other_contents(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with closing(KeptResults(directory)) as kept:
        kept.lock(to_json(identity, sort_keys=True))
        if len(kept):
            say(command, f"goes on with {len(kept):,} results kept in {directory}")
        try:
            yield kept
        except BaseException:
            with suppress(InvalidInputError):  # report the first error
                kept.commit()
            if len(kept):
                say(command, f"{len(kept):,} results are kept in {directory}; run it again")
            else:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        shutil.rmtree(directory, ignore_errors=True)


def _refuse_other_contents(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise InvalidInputError(f"{directory}: is a file, expected a directory or nothing")
    if directory.exists() and not (directory / FILE).is_file() and any(directory.iterdir()):
        raise InvalidInputError(
            f"{directory}: exists and holds no kept results (no {FILE}); choose another --work"
        )


def _connect(path: Path | str) -> sqlite3.Connection:
    """Open a database; a damaged one is replaced."""
    database = sqlite3.connect(path, timeout=0)
    try:
        database.execute("CREATE TABLE IF NOT EXISTS results (key PRIMARY KEY, value, hash)")
        if database.execute("PRAGMA quick_check").fetchone()[0] == "ok":
            return database
    except sqlite3.OperationalError:  # used by another process, or not writable
        raise
    except sqlite3.DatabaseError:
        pass
    database.close()
    Path(path).unlink()
    return _connect(path)


@contextmanager
def _reported_errors(directory: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise InvalidInputError(f"{directory}: another process is at work here") from error
        raise InvalidInputError(f"{directory}: results cannot be kept: {error}") from error
