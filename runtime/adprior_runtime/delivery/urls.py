"""The URLs of stores: which texts are one, and how messages show it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from adprior_runtime.errors import InvalidInputError

DIRECTORY: Final = "file"
HTTP: Final = ("http", "https")
PACKAGES: Final = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
"""The package that fsspec needs for the scheme of an object store."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(text: str) -> bool:
    """Return whether a text is a URL, not a path."""
    return _SCHEME.match(text) is not None


def find_scheme(url: str) -> str:
    """Return a URL's scheme in lower case; ``file`` for a path.

    Raises:
        InvalidInputError: The URL is of no known kind, or has more than a place and a path.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else DIRECTORY
    if scheme == DIRECTORY:
        return scheme
    if scheme not in {*HTTP, *PACKAGES}:
        known = ", ".join(f"{each}://" for each in (DIRECTORY, *HTTP, *PACKAGES))
        raise InvalidInputError(f"{show_url(url)}: expected a directory or one of {known}")
    parts = _split(url)
    if parts.query or parts.fragment or not parts.netloc:
        raise InvalidInputError(f"{show_url(url)}: expected {scheme}://, a place, and a path only")
    return scheme


def show_url(url: str) -> str:
    """Return a URL without user, password and query.

    Raises:
        InvalidInputError: It is malformed.
    """
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2] if parts.scheme in HTTP else parts.netloc
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in HTTP:
            _ = parts.port  # looked at only now, and refused if it is none
    except ValueError as error:
        # The error's own text may quote the user and password.
        shown = re.sub(r"(?s)//.*@", "//", url)
        shown = re.split(r"[?#]", shown, maxsplit=1)[0]
        raise InvalidInputError(f"{shown!r}: a malformed URL") from error
    return parts
