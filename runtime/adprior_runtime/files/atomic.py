"""Outputs appear complete or not at all: they are written beside the target, then renamed.

Their modes follow the umask, but other users can never write them.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from adprior_runtime.errors import InvalidInputError

OTHERS_WRITE: Final = 0o002
"""The mode bit that no output may have."""


@contextmanager
def replace_directory(target: Path, *, marker: str) -> Iterator[Path]:
    """Yield a fresh directory beside ``target`` that takes its place when the block succeeds.

    Linux exchanges the two in one step (``renameat2``), so that a reader finds the old directory or
    the new one, even after a kill. If the file system does not support it, the old directory is
    moved away first. A kill between the two renames then leaves the old one under a dotted name
    beside ``target``. Leftovers of killed runs are removed.

    Args:
        target: The directory to make or replace.
        marker: A file that our own outputs contain; other directories are not replaced.

    Raises:
        InvalidInputError: ``target`` exists, is not empty and is not an output of adprior.
    """
    target = target.resolve()  # a link stays, and points to the new directory
    check_replaceable(target, marker=marker)
    _make_parent(target)
    remove_leftovers(target)
    fresh = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    try:
        fresh.chmod(0o777 & ~(_umask() | OTHERS_WRITE))
        yield fresh
        _close_to_others(fresh)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_replaceable(target: Path, *, marker: str) -> None:
    """Raise InvalidInputError if `replace_directory` would not replace ``target``."""
    if target.exists() and not (target / marker).is_file() and any(_entries(target)):
        raise InvalidInputError(
            f"{target}: exists and is not an earlier output (no {marker}); choose another place"
        )


def remove_leftovers(target: Path, *, is_locked: bool = False) -> None:
    """Remove what killed runs left beside ``target``, but nothing of a run that is still alive.

    Args:
        target: The output.
        is_locked: Whether the caller is the only run of this process, and has no output under way.
            In a container, where every run has the same process id, what has it is a leftover then.
    """
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
        pid = leftover.name.removeprefix(f".{target.name}.new-").split("-")[0]
        is_own = is_locked and pid == str(os.getpid())
        if pid.isdigit() and not is_own and Path(f"/proc/{pid}").exists():
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def scratch_directory(target: Path) -> Iterator[Path]:
    """Yield a directory beside ``target``, on its file system, that is removed afterwards."""
    _make_parent(target.absolute())
    with tempfile.TemporaryDirectory(
        prefix=_prefix(target), dir=target.absolute().parent
    ) as directory:
        yield Path(directory)


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` that is renamed onto it when the block succeeds."""
    if target.is_dir():
        raise InvalidInputError(f"{target}: is a directory, expected a file or nothing")
    _make_parent(target.absolute())
    remove_leftovers(target)
    fresh = target.parent / f"{_prefix(target)}file"
    try:
        yield fresh
        _close_to_others(fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask from the kernel, because `os.umask` would change it."""
    with open("/proc/self/status", encoding="utf-8") as status:  # noqa: PTH123  not a file on disk
        found = [line for line in status if line.startswith("Umask:")]
    return int(found[0].split()[1], 8) if found else 0o022


def _close_to_others(output: Path) -> None:
    """Remove other users' right to write, which the umask or a copied file may give."""
    for path in (output, *output.rglob("*")):
        mode = path.lstat().st_mode
        if mode & OTHERS_WRITE and not path.is_symlink():
            path.chmod(mode & ~OTHERS_WRITE)


def _make_parent(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"{target.parent}: {error.strerror}") from error


def _entries(target: Path) -> list[Path]:
    if not target.is_dir():
        raise InvalidInputError(f"{target}: is a file, expected a directory or nothing")
    return list(target.iterdir())


def _prefix(target: Path) -> str:
    return f".{target.name}.new-{os.getpid()}-"


def _swap(fresh: Path, target: Path) -> None:
    if not target.exists():
        fresh.rename(target)
    elif not _exchange(fresh, target):
        old = fresh.with_name(fresh.name + "-old")
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two directories in one step; return False if the system cannot."""
    import ctypes  # noqa: PLC0415  needed only here, once a run

    rename_exchange, at_cwd = 2, -100
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    result = libc.renameat2(at_cwd, bytes(first), at_cwd, bytes(second), rename_exchange)
    return bool(result == 0)
