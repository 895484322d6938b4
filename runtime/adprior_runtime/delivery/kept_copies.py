"""Repositories from URLs that `adprior serve` keeps on this machine.

::

    CACHE/5d1f…/            one URL, with one name of a version
        3fa9c2e01b7d/       a repository; servers keep theirs, although the URL has a newer one
        3fa9c2e01b7d.lock   locked by the servers of this repository
        pull.lock           locked by the one that pulls
        last                the version that was pulled last, for when the URL cannot be reached
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_runtime.delivery.lookup import find_version, read_version
from adprior_runtime.delivery.pull import pull
from adprior_runtime.delivery.store import Store, open_store
from adprior_runtime.delivery.store_errors import StoreUnavailableError
from adprior_runtime.delivery.version import SHORT_ID, Kind
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file

_LAST: Final = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A repository on this machine.

    Attributes:
        directory: Where it is; it stays as long as the copy is held.
        version_id: Its version.
        problem: Why the URL could not be asked; empty if it was.
    """

    directory: Path
    version_id: str
    problem: str = ""


@contextmanager
def hold_copy(url: str, name: str, cache: Path | None = None) -> Iterator[Copy]:
    """Pull a repository, and keep it while the block runs.

    If the URL cannot be reached, the version that was pulled last is taken. Versions that no
    process holds are removed.

    Args:
        url: Where the repository was pushed.
        name: The version, as `find_version` takes it.
        cache: The directory for all URLs; None takes the user's.

    Raises:
        InvalidInputError: There is no such version, or it is a bundle.
        ArtefactError: Something at the URL is missing or corrupt.
        EnvironmentProblemError: The URL cannot be reached, and nothing was pulled before.
    """
    store = open_store(url)
    cache = default_cache() if cache is None else cache
    place = cache / hashlib.sha256(f"{url}\n{name}".encode()).hexdigest()[:SHORT_ID]
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"{place}: {error.strerror}; choose a directory with --cache"
        ) from error
    with contextlib.ExitStack() as locks:
        with _locked(place / "pull.lock", fcntl.LOCK_EX):
            version_id, problem = _find(store, name, place)
            directory = place / version_id[:SHORT_ID]
            locks.enter_context(_locked(_lock_of(directory), fcntl.LOCK_SH))
            if not problem:
                problem = _refresh(store, version_id, directory, cache)
                with replace_file(place / _LAST) as fresh:
                    fresh.write_text(version_id, encoding="ascii")
            _remove_unused(place, directory)
        yield Copy(directory=directory, version_id=version_id, problem=problem)


def default_cache() -> Path:
    """Return the user's directory for copies."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "adprior"


def _find(store: Store, name: str, place: Path) -> tuple[str, str]:
    """Return the id of the version to serve, and why the URL could not be asked."""
    try:
        return find_version(store, name), ""
    except StoreUnavailableError as error:
        last = place / _LAST
        if not last.is_file():
            raise
        return last.read_text(encoding="ascii"), str(error)


def _refresh(store: Store, version_id: str, directory: Path, cache: Path) -> str:
    """Pull a version; return why the URL could not be asked, if the version is here already."""
    try:
        if (kind := read_version(store, version_id).kind) is not Kind.REPOSITORY:
            raise InvalidInputError(
                f"{store.url}: has a {kind}, expected a repository: pull it, then "
                "`adprior build --bundle`"
            )
        others = [path for path in cache.glob("*/*") if path.is_dir() and path != directory]
        pull(store, version_id, directory, reuse=others)
    except StoreUnavailableError as error:
        if not directory.is_dir():
            raise
        return str(error)
    return ""


def _lock_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.lock")


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock, which the kernel releases if the process is killed; the file stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _remove_unused(place: Path, held: Path) -> None:
    for directory in place.iterdir():
        if directory.is_dir() and directory != held:
            name = directory.name.removeprefix(".").partition(".")[0]
            with (
                contextlib.suppress(BlockingIOError),
                _locked(place / f"{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB),
            ):
                shutil.rmtree(directory, ignore_errors=True)
