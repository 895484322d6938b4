"""What a URL stores: blobs, versions and tags, read and written through fsspec.

::

    blobs/3f/3fa9c2…        the content of a file, named after its SHA-256
    versions/9d04b1….json   the files of a version, named after the SHA-256 of this JSON
    tags/latest.json        the versions of a tag, and which one is active
    removed/5c07….json      blobs that go once no push or pull needs them any more (`prune`)

Blobs and versions never change. Each object appears complete: object stores work like that, and in
a directory a file is written beside its place and renamed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.callbacks import Callback

from adprior_runtime.delivery.store_errors import NotStoredError, explained
from adprior_runtime.delivery.urls import (
    DIRECTORY,
    HTTP,
    PACKAGES,
    find_scheme,
    is_url,
    show_url,
)
from adprior_runtime.delivery.version import Blob
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.files.atomic import replace_file

_COPY_BYTES: Final = 4 << 20

BLOBS: Final = "blobs"
VERSIONS: Final = "versions"
TAGS: Final = "tags"

Advance = Callable[[int], object]


def open_store(url: str) -> Store:
    """Return the store at a URL or in a local directory; nothing is read.

    Raises:
        InvalidInputError: The URL is of no known kind.
        EnvironmentProblemError: The package for its kind is not installed.
    """
    scheme, shown = find_scheme(url), show_url(url.rstrip("/"))
    if scheme == DIRECTORY:
        path = Path(url.partition("://")[2] if is_url(url) else url)
        return _DirectoryStore(fsspec.filesystem("file"), str(path.absolute()), str(path))
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in HTTP:
        options["client_kwargs"] = _http_options()
    try:
        with explained(shown):
            files, root = fsspec.core.url_to_fs(url.rstrip("/"), **options)
    except EnvironmentProblemError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        package = PACKAGES.get(scheme, "aiohttp")
        raise EnvironmentProblemError(
            f"{shown}: needs the package {package}: pip install {package}"
        ) from error
    kind = _HttpStore if scheme in HTTP else Store
    return kind(files, root.rstrip("/"), shown)


class Store:
    """The objects at a URL of an object store.

    Attributes:
        url: The URL, without a password, for messages.
        is_writable: Whether a push can write here.
    """

    is_writable = True

    def __init__(self, files: Any, root: str, url: str) -> None:
        self._files = files
        self._root = root
        self.url = url

    def place(self, name: str) -> str:
        """Return an object's URL, for messages."""
        return f"{self.url}/{name}"

    def has_ranges(self, name: str) -> bool:  # noqa: ARG002  an HTTP server is asked
        """Return whether parts of objects can be read; ``name`` is one of 2 bytes or more."""
        return True

    def size(self, name: str) -> int | None:
        """Return an object's length in bytes, None if there is none."""
        try:
            with explained(self.place(name)):
                return int(self._files.info(self._path(name))["size"])
        except NotStoredError:
            return None

    def list(self, folder: str) -> dict[str, int]:
        """Return the objects below a folder: their lengths in bytes by name, sorted.

        In a directory, files that are still being written are left out.
        """
        with explained(self.place(folder)):
            found = self._files.find(self._path(folder), detail=True)
        sizes = {path.rpartition(f"/{folder}/")[2]: info["size"] for path, info in found.items()}
        return {
            f"{folder}/{name}": int(size)
            for name, size in sorted(sizes.items())
            if not name.rpartition("/")[2].startswith(".")
        }

    def modified(self, name: str) -> datetime:
        """Return when an object was written, by the storage's clock.

        Raises:
            NotStoredError: There is no such object.
        """
        with explained(self.place(name)):
            written: datetime = self._files.modified(self._path(name))
        return written

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return an object's bytes, or those from ``start`` to before ``end``.

        Raises:
            NotStoredError: There is no such object.
            StoreRefusedError: The storage refuses.
            StoreUnavailableError: It does not answer.
        """
        with explained(self.place(name)):
            return bytes(self._files.cat_file(self._path(name), start=start, end=end))

    def download(self, name: str, target: Path) -> None:
        """Write an object's bytes into a file; it is incomplete if this fails."""
        with explained(self.place(name)):
            self._files.get_file(self._path(name), str(target))

    def write(self, name: str, data: bytes) -> None:
        """Write a small object in one step."""
        with explained(self.place(name)):
            self._files.pipe_file(self._path(name), data)

    def upload(self, source: Path, name: str, advance: Advance) -> None:
        """Write a file's content in one step; ``advance`` gets the bytes as they are sent."""
        with explained(self.place(name)):
            self._files.put_file(str(source), self._path(name), callback=_Sent(advance))

    def move(self, name: str, to: str) -> None:
        """Give an object another name; one that has the name is replaced in one step."""
        with explained(self.place(to)):
            self._files.cp_file(self._path(name), self._path(to))
            self._files.rm_file(self._path(name))

    def remove(self, name: str) -> None:
        """Remove an object."""
        with explained(self.place(name)):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class _HttpStore(Store):
    """The objects of a web server, to be read only."""

    is_writable = False

    def has_ranges(self, name: str) -> bool:
        return len(self.read(name, 0, 1)) == 1


class _DirectoryStore(Store):
    """A directory, where files are renamed into place."""

    def write(self, name: str, data: bytes) -> None:
        with explained(self.place(name)), replace_file(Path(self._path(name))) as fresh:
            fresh.write_bytes(data)

    def upload(self, source: Path, name: str, advance: Advance) -> None:
        with (
            explained(self.place(name)),
            source.open("rb") as reader,
            replace_file(Path(self._path(name))) as fresh,
            fresh.open("wb") as writer,
        ):
            while chunk := reader.read(_COPY_BYTES):
                writer.write(chunk)
                advance(len(chunk))

    def move(self, name: str, to: str) -> None:
        with explained(self.place(to)):
            Path(self._path(name)).replace(self._path(to))


def blob_name(blob: Blob) -> str:
    """Return the name of a blob's object."""
    return f"{BLOBS}/{blob.sha256[:2]}/{blob.sha256}"


def version_name(version_id: str) -> str:
    """Return the name of a version's object."""
    return f"{VERSIONS}/{version_id}.json"


def tag_name(tag: str) -> str:
    """Return the name of a tag's object."""
    return f"{TAGS}/{tag}.json"


class _Sent(Callback):  # type: ignore[misc]  # fsspec has no types
    """Passes on what fsspec sent."""

    def __init__(self, advance: Advance) -> None:
        super().__init__()
        self._advance = advance

    def relative_update(self, inc: int = 1) -> None:
        self._advance(inc)


def _http_options() -> dict[str, Any]:
    """Return aiohttp's settings: bounded waits, and the environment's proxies and netrc."""
    import aiohttp  # noqa: PLC0415  needed for HTTP only

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
    return {"timeout": timeout, "trust_env": True}
