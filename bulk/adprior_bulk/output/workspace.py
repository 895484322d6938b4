"""The output directory as a place of work: one run at a time, and no leftovers of others."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adprior_client.stored.parquet_files import MANIFEST, OLD_MANIFEST
from adprior_runtime.errors import InvalidInputError


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep an output directory, made if need be, to one run.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        InvalidInputError: It is something else, or another run writes there.
    """
    if output.is_file():
        raise InvalidInputError(f"{output}: is a file, expected a directory or nothing")
    known = {MANIFEST, OLD_MANIFEST, ".lock"}
    is_ours = not output.is_dir() or (output / ".lock").exists()
    if not is_ours and (strange := {path.name for path in output.iterdir()} - known):
        raise InvalidInputError(
            f"{output}: holds {min(strange)} and is not an output of adprior bulk; "
            "choose another place"
        )
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidInputError(f"{output}: another adprior bulk is writing there") from error
        yield


def drop_other_runs(directory: Path) -> None:
    """Remove what runs of other requests have begun and not finished."""
    if directory.parent.is_dir():
        for other in directory.parent.iterdir():
            if other.name != directory.name:
                shutil.rmtree(other, ignore_errors=True)
