"""Pushes a bundle or repository to a URL: blobs that are not there, the version, then the tag."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from adprior_runtime.bundle import hash_file
from adprior_runtime.delivery.fetch import TRANSFERS
from adprior_runtime.delivery.lookup import read_present_tag, read_version
from adprior_runtime.delivery.prune import read_condemned
from adprior_runtime.delivery.scan import list_files, require_kind, scan_version
from adprior_runtime.delivery.store import Store, blob_name, tag_name, version_name
from adprior_runtime.delivery.tag import Entry, Tag
from adprior_runtime.delivery.version import Blob, Version
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import progress_bar


class _FileState(NamedTuple):
    """What changes with a file's content."""

    modified_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the state of a file."""
        found = path.stat()
        return cls(found.st_mtime_ns, found.st_size, found.st_ino)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did.

    Attributes:
        version: The version.
        sent_bytes: Bytes of the blobs that were not there.
        previous: The id of the version that was active before; empty if there was none.
        is_active: Whether the version is active now.
    """

    version: Version
    sent_bytes: int
    previous: str
    is_active: bool


def push(
    directory: Path, store: Store, tag: str, *, activate: bool = True, force: bool = False
) -> Pushed:
    """Push a directory; a kill at any moment leaves the tag with what it had.

    Args:
        directory: A bundle or repository.
        store: Where to.
        tag: The tag that gets the version.
        activate: Whether a pull of the tag gets the version from now on.
        force: Send every blob, also those that are there.

    Raises:
        InvalidInputError: The directory is neither, or changes meanwhile.
        ArtefactError: A file does not match its bundle's manifest.
        EnvironmentProblemError: The URL cannot be reached, or refuses.
    """
    _require_writable(store)
    before = read_present_tag(store, tag)  # fails now, not after minutes of hashing
    require_kind(directory)
    states = {name: _FileState.of(directory / name) for name in list_files(directory)[0]}
    size = sum(state.size for state in states.values())
    with progress_bar(total=size, desc="adprior push: hashing", unit="B", leave=False) as bar:
        version = scan_version(directory, bar.update)
    version_id = version.id
    sent = 0
    if force or store.size(version_name(version_id)) is None:  # it is written after its blobs
        resend = set(map(blob_name, version.files.values())) if force else read_condemned(store)
        sent = _send_blobs(directory, version, store, states, resend=resend)
        store.write(version_name(version_id), version.to_json())
    sent += _send_lost_blobs(directory, version, store, states)
    pushed = datetime.now(UTC).isoformat(timespec="seconds")
    after = read_present_tag(store, tag).with_push(version, pushed, activate=activate)
    _write_tag(store, tag, after, version)
    return Pushed(
        version=version,
        sent_bytes=sent,
        previous=before.active,
        is_active=after.active == version_id,
    )


def activate_version(store: Store, tag: str, name: str) -> tuple[Entry, str]:
    """Let pulls of a tag get a version that was pushed to it.

    Args:
        store: Where the tag is.
        tag: The tag.
        name: The version, as `Tag.find` takes it.

    Returns:
        The version, and the id of the one that was active before.
    """
    _require_writable(store)
    before = read_present_tag(store, tag)
    entry = before.find(name, store.place(tag_name(tag)))
    version = read_version(store, entry.version)
    _write_tag(store, tag, before.with_active(entry.version), version)
    return entry, before.active


def _write_tag(store: Store, name: str, tag: Tag, version: Version) -> None:
    """Write a tag that names a version; write that again if a prune has just removed it."""
    store.write(tag_name(name), tag.to_json())
    if store.size(version_name(version.id)) is None:
        store.write(version_name(version.id), version.to_json())


def _send_lost_blobs(
    directory: Path, version: Version, store: Store, states: Mapping[str, _FileState]
) -> int:
    """Send what a prune has removed since it was sent; return the bytes.

    A prune looks at a blob, then removes it: a push may replace the blob between the two. Once the
    version is written, no prune that begins removes its blobs. A push that was killed may have
    written the version without this check.
    """
    sent = 0
    while lost := _send_blobs(directory, version, store, states, resend=(), leave=False):
        sent += lost
    return sent


def _send_blobs(
    directory: Path,
    version: Version,
    store: Store,
    states: Mapping[str, _FileState],
    *,
    resend: Container[str],
    leave: bool = True,
) -> int:
    """Send the blobs that the store lacks, and those of ``resend``, in parallel.

    Returns:
        Their bytes.
    """
    sources = {blob: name for name, blob in version.files.items()}
    total = sum(blob.size for blob in sources)
    with (
        progress_bar(total=total, desc="adprior push", unit="B", leave=leave) as bar,
        ThreadPoolExecutor(TRANSFERS, thread_name_prefix="adprior-push") as pool,
    ):
        sender = _Sender(store, bar, resend=resend)
        waiting = [
            pool.submit(sender.send, directory / name, blob, states[name])
            for blob, name in sources.items()
        ]
        try:
            return sum(future.result() for future in as_completed(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Sender:
    """Sends blobs; several threads share it."""

    def __init__(self, store: Store, bar: Any, *, resend: Container[str]) -> None:
        self._store = store
        self._bar = bar
        self._resend = resend
        self._lock = threading.Lock()

    def send(self, path: Path, blob: Blob, state: _FileState) -> int:
        """Send a blob if it is not there; return the bytes that were sent.

        Raises:
            InvalidInputError: The file has changed since it was in ``state``, before it was hashed.
        """
        name = blob_name(blob)
        stored = self._store.size(name)
        # A prune spares a condemned blob that is sent again.
        if stored == blob.size and name not in self._resend:
            self._advance(blob.size)
            return 0
        # What is stored may be good: it is replaced by bytes that were checked only.
        fresh = name if stored is None else f"{name}.new-{secrets.token_hex(8)}"
        self._store.upload(path, fresh, self._advance)
        is_changed = _FileState.of(path) != state
        if is_changed or (fresh != name and hash_file(path) != blob.sha256):
            self._store.remove(fresh)
            raise InvalidInputError(f"{path}: changed while it was pushed; push again")
        if fresh != name:
            self._store.move(fresh, name)
        return blob.size

    def _advance(self, size: int) -> None:
        with self._lock:
            self._bar.update(size)


def _require_writable(store: Store) -> None:
    if not store.is_writable:
        raise InvalidInputError(f"{store.url}: a push needs a directory or an object store")
