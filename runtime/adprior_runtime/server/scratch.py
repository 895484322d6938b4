"""The server's scratch directory and shared memory; removes leftovers of servers that were killed.

Each directory has a lock file. Two processes hold the lock: the command, and the server that
inherits the descriptor. The kernel releases the lock when both have ended, also after a kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

_PREFIX: Final = "adprior-server-"
_LOCK: Final = "lock"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108


class Scratch:
    """A directory that lives as long as a server does, with the server's shared memory.

    Attributes:
        directory: Its path; the names of the shared memory begin with its name.
        descriptor: The descriptor of the lock file, which the server inherits.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        self.directory = directory
        self.descriptor = descriptor

    @classmethod
    def make(cls) -> Self:
        """Make a scratch directory, and remove the directories of servers that were killed."""
        _remove_abandoned(Path(tempfile.gettempdir()))
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):  # without locks, none is ever removed
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        return cls(directory, descriptor)

    def shared_memory(self) -> Iterator[Path]:
        """Yield the server's regions of shared memory."""
        yield from _regions(self.directory)

    def remove(self) -> None:
        """Remove directory and shared memory; a second call does nothing."""
        _remove(self.directory)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1


def _remove_abandoned(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}?*/{_LOCK}"):
        with contextlib.suppress(OSError):  # alive, another user's, or gone meanwhile
            _remove_if_abandoned(lock)


def _remove_if_abandoned(lock: Path) -> None:
    owner = lock.parent.stat(follow_symlinks=False)
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid():
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    try:
        # A directory that holds only the lock was just made, and is about to be locked.
        others = [path for path in lock.parent.iterdir() if path.name != _LOCK]
        if others:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock.parent)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    # A server that was killed, or stopped while it loaded, leaves its shared memory.
    for region in _regions(directory):
        region.unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _regions(directory: Path) -> Iterator[Path]:
    return _SHARED_MEMORY.glob(f"{glob.escape(directory.name)}*")
