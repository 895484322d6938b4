"""Passwords of Redis from files, read again at each connection: they may be exchanged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from adprior_runtime.errors import InvalidInputError


class PasswordFile:
    """What redis-py asks for credentials whenever it connects.

    Args:
        path: A file that holds the password alone.
        username: Of Redis' ACL, None where it knows no users.

    Raises:
        InvalidInputError: It is unreadable, empty or has several lines.
    """

    def __init__(self, path: str | Path, username: str | None) -> None:
        self._path = path
        self._username = username
        self._last = read_password(path)

    def get_credentials(self) -> tuple[str, ...]:
        """Return user name and password; the last good one while the file cannot be read."""
        with suppress(InvalidInputError):  # it is being exchanged
            self._last = read_password(self._path)
        return (self._last,) if self._username is None else (self._username, self._last)


def read_password(path: str | Path) -> str:
    """Return a file's only line.

    Raises:
        InvalidInputError: It is unreadable, empty or has several lines.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInputError(f"{path}: {reason}") from error
    if len(lines) != 1 or not lines[0]:
        raise InvalidInputError(f"{path}: found {len(lines)} lines, expected the password alone")
    return lines[0]
