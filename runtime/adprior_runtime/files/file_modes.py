"""Checks of files that other users of the machine must not read or write."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from adprior_runtime.errors import InvalidInputError

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{16,1024}")
"""A token has no character that separates tritonserver's flags, and is too long to guess."""


def check_private(path: Path) -> None:
    """Refuse a secret that another user of the machine can read or replace.

    The rule is PostgreSQL's: the user's own file is readable by the user alone (0600), a file of
    root also by its group (0640), which is how secrets are mounted into containers.

    Raises:
        InvalidInputError: The file cannot be read, or is not private.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInputError(f"{path}: not a file")
    if found.st_uid not in {0, os.geteuid()}:
        raise InvalidInputError(
            f"{path}: belongs to user {found.st_uid}, who could replace it; "
            f"expected user {os.geteuid()} or root"
        )
    allowed = 0o740 if found.st_uid == 0 else 0o700
    if (mode := stat.S_IMODE(found.st_mode)) & ~allowed:
        raise InvalidInputError(
            f"{path}: mode {mode:04o} lets other users of this machine read or change it, "
            f"expected {allowed & 0o640:04o} or less: chmod 600 {path}"
        )


def find_writable(directory: Path) -> Path | None:
    """Return a file or directory in ``directory`` that every user may write; None if there is none.

    A read-only mount has none, although some mounts show wrong modes.
    """
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return None
    place = directory.resolve()  # the directory may be a link
    for path in (place, *sorted(place.rglob("*"))):
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH:
            return path
    return None


def read_token(path: Path) -> str:
    """Return the token in a file, without white space around it.

    Raises:
        InvalidInputError: The file is unreadable, not private, or has no token. The message does
            not quote its content.
    """
    check_private(path)
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: not a readable text of ASCII") from error
    if not _TOKEN.fullmatch(token):
        raise InvalidInputError(
            f"{path}: expected one token, 16 to 1024 letters, digits, - . _ ~ + or /; "
            f"make one: (umask 077; openssl rand -hex 32 > {path})"
        )
    return token
