"""A version: the files of one bundle or model repository, each with its SHA-256 and size.

A version is stored as JSON and named after the SHA-256 of that JSON. So it never changes, and the
same files always make the same version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from adprior_runtime.errors import ArtefactError
from adprior_runtime.text.json_text import to_json

FORMAT: Final = "adprior-delivery/1"
SHA256: Final = re.compile(r"[0-9a-f]{64}")
SHORT_ID: Final = 12
"""Characters of a version's id that people see."""


class Kind(StrEnum):
    """What a version contains."""

    BUNDLE = "bundle"
    REPOSITORY = "repository"


@dataclass(frozen=True, slots=True)
class Blob:
    """The content of a file.

    Attributes:
        sha256: Its SHA-256 in hex.
        size: Its length in bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The files of a bundle or repository.

    Attributes:
        kind: What the files are.
        bundle_id: The id of the bundle in it.
        files: The content of each file, by its path with ``/``.
        empty_directories: Directories without a file: Triton needs those of its ensembles.
    """

    kind: Kind
    bundle_id: str
    files: Mapping[str, Blob]
    empty_directories: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The SHA-256 of the version's JSON, in hex."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(blob.size for blob in self.files.values())

    @property
    def blobs(self) -> dict[str, Blob]:
        """Each content once, by its SHA-256: files of the same content share it."""
        return {blob.sha256: blob for blob in self.files.values()}

    def to_json(self) -> bytes:
        """Return the version as it is stored."""
        document = {"format": FORMAT, **asdict(self)}
        return to_json(document, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, *, version_id: str, where: str) -> Version:
        """Read a stored version.

        Args:
            data: What was read.
            version_id: The id under which it was read.
            where: Its place, for messages.

        Raises:
            ArtefactError: It is not the version of that id, or names impossible files.
        """
        if (found := hashlib.sha256(data).hexdigest()) != version_id:
            raise ArtefactError(
                f"{where}: corrupt or edited: sha256 {found[:SHORT_ID]}…, its name says "
                f"{version_id[:SHORT_ID]}…"
            )
        try:
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise ArtefactError(
                    f"{where}: format {document['format']!r}, this adprior reads {FORMAT!r}"
                )
            version = cls(
                kind=Kind(document["kind"]),
                bundle_id=str(document["bundle_id"]),
                files={name: _parse_blob(blob) for name, blob in document["files"].items()},
                empty_directories=tuple(document["empty_directories"]),
            )
            _check_names([*version.files, *version.empty_directories])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"{where}: not a version of adprior: {error}") from error
        return version


def _parse_blob(document: Any) -> Blob:
    blob = Blob(**{each.name: document[each.name] for each in fields(Blob)})
    if not isinstance(blob.sha256, str) or not SHA256.fullmatch(blob.sha256):
        raise ValueError(f"sha256 is {blob.sha256!r}, expected 64 hex digits")
    if type(blob.size) is not int or blob.size < 0:
        raise ValueError(f"size is {blob.size!r}, expected a whole number")
    return blob


def _check_names(names: list[str]) -> None:
    """Refuse a path outside the directory, and a file in the place of a directory."""
    known = set(names)
    if len(known) != len(names):
        raise ValueError("a path occurs twice")
    for name in names:
        check_name(name)
        parts = name.split("/")
        if above := known & {"/".join(parts[:count]) for count in range(1, len(parts))}:
            raise ValueError(f"{above.pop()!r} is a file and a directory")


def check_name(name: str) -> None:
    """Raise ValueError for a path that is absolute, leaves its directory, or cannot be shown."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"impossible path {name!r}, expected one inside the directory")
