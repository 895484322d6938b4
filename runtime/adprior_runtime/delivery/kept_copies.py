"""Repositories from URLs that `adprior serve` keeps on this machine.

::

    CACHE/5d1f…/            one URL
        3fa9c2e01b7d/       a repository; servers keep theirs, although the URL has a newer one
        3fa9c2e01b7d.lock   locked by the servers of this repository
        pull.lock           locked by the one that pulls
        last                JSON: by name, the version that was pulled last, the latest pull last
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
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
from adprior_runtime.delivery.version import SHA256, SHORT_ID, Kind
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.text.json_text import to_json

_LAST: Final = "last"
_COPY: Final = re.compile(rf"[0-9a-f]{{{SHORT_ID}}}")


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

    If the URL cannot be reached, or not all of the version, the one that was pulled last under this
    name is taken. Versions that no process holds are removed, but for one of another name.

    Args:
        url: Where the repository was pushed.
        name: The version, as `find_version` takes it.
        cache: The directory for all URLs; None takes the user's.

    Raises:
        InvalidInputError: There is no such version, or it is a bundle.
        ArtefactError: Something at the URL is missing or corrupt.
        EnvironmentProblemError: The URL refuses; or it cannot be reached, and nothing was pulled
            before.
    """
    store = open_store(url)
    cache = default_cache() if cache is None else cache
    place = cache / hashlib.sha256(url.encode()).hexdigest()[:SHORT_ID]
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"{place}: {error.strerror}; choose a directory with --cache"
        ) from error
    with contextlib.ExitStack() as locks:
        with _locked(place / "pull.lock", fcntl.LOCK_EX):
            last, problem = _read_last(place), ""
            try:
                version_id = find_version(store, name)
                directory = place / version_id[:SHORT_ID]
                _refresh(store, version_id, directory, cache)
            except StoreUnavailableError as error:
                is_id = SHA256.fullmatch(name) is not None
                version_id, problem = last.get(name, name if is_id else ""), str(error)
                directory = place / version_id[:SHORT_ID]
                if not version_id or not directory.is_dir():
                    raise
            last = {each: id_ for each, id_ in last.items() if each != name} | {name: version_id}
            locks.enter_context(_locked(_lock_of(directory), fcntl.LOCK_SH))
            _remove_unused(place, last, version_id)
        yield Copy(directory=directory, version_id=version_id, problem=problem)


def default_cache() -> Path:
    """Return the user's directory for copies."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "adprior"


def _read_last(place: Path) -> dict[str, str]:
    """Return the version that was pulled last, by name; none if the file is missing or damaged."""
    try:
        document = json.loads((place / _LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = document.items() if isinstance(document, dict) else ()
    return {name: id_ for name, id_ in pairs if isinstance(id_, str) and SHA256.fullmatch(id_)}


def _refresh(store: Store, version_id: str, directory: Path, cache: Path) -> None:
    """Pull a version; what other copies have is linked."""
    if (kind := read_version(store, version_id).kind) is not Kind.REPOSITORY:
        raise InvalidInputError(
            f"{store.url}: has a {kind}, expected a repository: pull it, then "
            "`adprior build --bundle`"
        )
    with contextlib.ExitStack() as locks:
        others = []
        for path in cache.glob("*/*"):
            if _COPY.fullmatch(path.name) and path != directory:
                # Another server may be removing it.
                with contextlib.suppress(OSError):
                    how = fcntl.LOCK_SH | fcntl.LOCK_NB
                    locks.enter_context(_locked(_lock_of(path), how))
                    if path.is_dir():
                        others.append(path)
        pull(store, version_id, directory, reuse=others)


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


def _remove_unused(place: Path, last: dict[str, str], held: str) -> None:
    """Remove copies that are neither held nor the latest of another name; note what is left."""
    latest = [version_id for version_id in last.values() if version_id != held][-1:]
    kept = {version_id[:SHORT_ID] for version_id in (held, *latest)}
    for directory in place.iterdir():
        if directory.is_dir() and directory.name not in kept:
            name = directory.name.removeprefix(".").partition(".")[0]
            with (
                contextlib.suppress(BlockingIOError),
                _locked(place / f"{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB),
            ):
                shutil.rmtree(directory, ignore_errors=True)
    left = {name: id_ for name, id_ in last.items() if (place / id_[:SHORT_ID]).is_dir()}
    with replace_file(place / _LAST) as fresh:
        fresh.write_text(to_json(left), encoding="utf-8")
