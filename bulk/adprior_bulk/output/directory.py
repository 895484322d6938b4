"""The output directory: its lock, the Parquet files that other tools read, and its clean-up.

pandas, Polars, DuckDB, Spark and pyarrow read a directory's ``*.parquet`` and know no manifest. So
the directory has one ``shard-NNNN.parquet`` per shard. Each file is replaced in one step and users
never change their shard, so such a tool finds each user exactly once at every moment. During the
few milliseconds in which a version replaces another, it may find shards of both; only readers of
the manifest always see one version. A run that is killed at this point leaves shards of both until
the next run starts.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adprior_bulk.output.manifest import DEAD_LETTERS, VERSIONS, Manifest
from adprior_client.stored.parquet_files import KEPT, MANIFEST
from adprior_runtime.errors import InvalidInputError


@contextmanager
def lock_directory(output: Path) -> Iterator[None]:
    """Lock an output directory for one run; make it if necessary.

    The operating system releases the lock when the process ends, even after a kill.

    Raises:
        InvalidInputError: The path is not such a directory, or another run writes there.
    """
    if output.is_file():
        raise InvalidInputError(f"{output}: is a file, expected a directory or nothing")
    is_ours = not output.is_dir() or (output / ".lock").exists()
    if not is_ours and (strange := {path.name for path in output.iterdir()} - {MANIFEST}):
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


def show_table(directory: Path, manifest: Manifest) -> None:
    """Replace the visible Parquet files by those of a manifest; files that already match stay.

    They are hard links, or copies where the file system has none.

    Raises:
        InvalidInputError: A file that the manifest lists is missing.
    """
    for leftover in directory.glob(".shard-*"):
        leftover.unlink(missing_ok=True)
    shown: set[str] = set()
    for file in manifest.files:
        name = f"shard-{file.shard:04d}.parquet"
        shown.add(name)
        _link_or_copy(directory / file.path, directory / name)
    for path in directory.glob("shard-*.parquet"):
        if path.name not in shown:
            path.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    if _is_same(source, target):
        return
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.link(source, fresh)
    except FileNotFoundError:
        raise InvalidInputError(f"{source}: is missing, though the manifest lists it") from None
    except OSError:
        shutil.copy2(source, fresh)
    fresh.replace(target)


def _is_same(source: Path, target: Path) -> bool:
    """Return whether the target is the source itself, or its copy."""
    try:
        first, second = source.stat(), target.stat()
    except FileNotFoundError:
        return False
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)


def drop_other_runs(directory: Path) -> None:
    """Remove the unfinished runs except the one in this directory."""
    if directory.parent.is_dir():
        for other in directory.parent.iterdir():
            if other.name != directory.name:
                shutil.rmtree(other, ignore_errors=True)


def drop_old_versions(directory: Path, current: Manifest, keep: int) -> None:
    """Delete the files of all but the newest ``keep`` versions; the current one always stays."""
    stored = sorted((directory / KEPT).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    others = [path for path in stored if path.stem != current.version]
    kept = [Manifest.read(path) for path in others[len(others) - keep + 1 :]] if keep > 1 else []
    for path in others[: len(others) - len(kept)]:
        path.unlink(missing_ok=True)
    listed = {
        file.path
        for manifest in (*kept, current)
        for file in (*manifest.files, *manifest.dead_letters)
    }
    for parent in (VERSIONS, DEAD_LETTERS):
        for date in directory.glob(f"{parent}/date=*"):
            _drop_unlisted(directory, date, listed)


def _drop_unlisted(directory: Path, date: Path, listed: set[str]) -> None:
    for path in date.glob("shard=*/*"):
        if str(path.relative_to(directory)) not in listed:
            path.unlink(missing_ok=True)
    for shard in [*date.glob("shard=*"), date]:
        if not any(shard.iterdir()):
            shard.rmdir()
