"""The table as other tools see it: one Parquet file for each shard, at the top of the directory.

pandas, Polars, DuckDB, Spark and pyarrow read a directory's ``*.parquet`` and know no manifest. A
shard's file is replaced in one step, and users never change their shard: so at every moment such a
tool finds each user once. While a version takes the place of another, for some milliseconds, it may
find shards of both; it sees one version only through the manifest. A run that is killed meanwhile
leaves shards of both until the next one starts.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from adprior_bulk.output.manifest import Manifest
from adprior_runtime.errors import InvalidInputError


def show_table(directory: Path, manifest: Manifest) -> None:
    """Let the visible files be those of a manifest; what is right is left alone.

    They are hard links, or copies where the file system has none.

    Raises:
        InvalidInputError: A file that the manifest names is missing.
    """
    for remains in directory.glob(".shard-*"):
        remains.unlink(missing_ok=True)
    shown: set[str] = set()
    for file in manifest.files:
        name = f"shard-{file.shard:04d}.parquet"
        shown.add(name)
        _put(directory / file.path, directory / name)
    for path in directory.glob("shard-*.parquet"):
        if path.name not in shown:
            path.unlink(missing_ok=True)


def _put(source: Path, target: Path) -> None:
    if _is_same(source, target):
        return
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.link(source, fresh)
    except FileNotFoundError:
        raise InvalidInputError(f"{source}: is missing, though the manifest names it") from None
    except OSError:
        shutil.copy2(source, fresh)
    fresh.replace(target)


def _is_same(source: Path, target: Path) -> bool:
    """Tell whether one is the other, or its copy."""
    try:
        first, second = source.stat(), target.stat()
    except FileNotFoundError:
        return False
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
