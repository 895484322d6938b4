"""Pulls a version into a directory: fetches what is missing, checks it, and swaps it in."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_runtime.delivery.fetch import Fetch, persist
from adprior_runtime.delivery.local_files import LocalFiles
from adprior_runtime.delivery.lookup import read_version
from adprior_runtime.delivery.scan import MARKERS
from adprior_runtime.delivery.staging import Staging
from adprior_runtime.delivery.store import Store, blob_name
from adprior_runtime.delivery.version import Blob, Version
from adprior_runtime.errors import AdpriorError, EnvironmentProblemError
from adprior_runtime.files.atomic import check_replaceable, remove_leftovers, replace_directory
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.terminal.progress import progress_bar

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull did.

    Attributes:
        version: The version that the directory now has.
        version_id: Its id.
        fetched_bytes: Bytes that came from the URL; the others were here.
        is_changed: False if the directory had the version already.
    """

    version: Version
    version_id: str
    fetched_bytes: int
    is_changed: bool


def pull(store: Store, version_id: str, target: Path, reuse: Sequence[Path] = ()) -> Pulled:
    """Make ``target`` a version; a kill at any moment leaves what was there.

    Args:
        store: Where the version is.
        version_id: Its id.
        target: The directory to make or to replace.
        reuse: More directories whose files need not be fetched.

    Raises:
        ArtefactError: Something at the URL is missing or corrupt.
        EnvironmentProblemError: The URL cannot be reached, or the disk is full.
        InvalidInputError: The target cannot be replaced.
    """
    version = read_version(store, version_id)
    target = target.resolve()  # a link stays, and points to the new directory
    check_replaceable(target, marker=MARKERS[version.kind])
    with Staging(target) as staging, _room_made(staging, target):
        staging.keep_only(version.blobs)
        present = LocalFiles(target)
        is_there = present.are(version)
        fetched_bytes = 0
        if not is_there:
            sources = [present, *map(LocalFiles, reuse)]
            fetched_bytes = _stage(store, version, staging, sources)
            _assemble(version, staging, target)
        staging.remove()
        remove_leftovers(target, is_locked=True)
    return Pulled(
        version=version,
        version_id=version_id,
        fetched_bytes=fetched_bytes,
        is_changed=not is_there,
    )


def _stage(store: Store, version: Version, staging: Staging, sources: Sequence[LocalFiles]) -> int:
    """Bring every blob into the staging directory; return the bytes that were fetched."""
    missing = {key: blob for key, blob in version.blobs.items() if not staging.has(blob)}
    for source in sources:
        for path, blob in source.find(missing):
            staging.adopt(path, blob)
        missing = {key: blob for key, blob in missing.items() if not staging.has(blob)}
    # The smallest, because a server without ranges sends it whole.
    probe = min((blob for blob in version.blobs.values() if blob.size > 1), key=_size_of)
    in_parts = persist(lambda: store.has_ranges(blob_name(probe)))
    fetch = Fetch(store, staging, list(missing.values()), in_parts=in_parts)
    size = fetch.size
    free = shutil.disk_usage(staging.directory).free
    if size > free:
        raise OSError(errno.ENOSPC, f"{size:,} bytes are missing, the disk has {free:,} free")
    total = sum(blob.size for blob in version.blobs.values())
    with progress_bar(total=total, desc="adprior pull", unit="B") as bar:
        bar.update(total - size)
        fetch.run(bar.update)
    return size


def _size_of(blob: Blob) -> int:
    return blob.size


def _assemble(version: Version, staging: Staging, target: Path) -> None:
    with replace_directory(target, marker=MARKERS[version.kind]) as fresh:
        for name, blob in version.files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(staging.path(blob), path)
        for name in version.empty_directories:
            (fresh / name).mkdir(parents=True)


@contextmanager
def _room_made(staging: Staging, target: Path) -> Iterator[None]:
    """Remove what was fetched if the disk is full, because others need it too."""
    try:
        yield
    except (OSError, AdpriorError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _FULL:
            raise
        staging.remove()
        raise EnvironmentProblemError(f"{target.parent}: {cause.strerror}") from error
