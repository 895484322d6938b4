"""The directory of a local Ray: below ``TMPDIR``, through a short link if that path is too long.

The path of a Unix socket has at most 107 bytes, and Ray's own part of it takes more than sixty. The
paths that batch systems set in ``TMPDIR`` are often too long for the rest. A symbolic link makes
the path short, and Ray's files stay where the machine's owner wants them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from adprior_runtime.errors import EnvironmentProblemError

_VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR")
"""Variables that name Ray's directory; the first one that is set is used."""

_SOCKET_BYTES: Final = 107
_BELOW: Final = "/session_2026-11-29_23-59-59_999999_4194304/sockets/plasma_store"
_MOST_BYTES: Final = _SOCKET_BYTES - len(_BELOW)
_LINK_PARENTS: Final = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  private directories in them


@contextmanager
def short_directory() -> Iterator[str | None]:
    """Yield a directory for a local Ray, removed at exit; None if Ray's own choice is short enough.

    Raises:
        EnvironmentProblemError: ``TMPDIR`` is too long, and no short link to it can be made.
    """
    variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
    wanted = Path(os.environ[variable]).absolute() / "ray" if variable else Path()
    if variable is None or len(os.fsencode(wanted)) <= _MOST_BYTES:
        yield None
        return
    with ExitStack() as stack:
        yield _link(wanted, variable, stack)


def _link(wanted: Path, variable: str, stack: ExitStack) -> str:
    """Return a short link to a directory; closing the stack removes it."""
    reason = ""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblemError(f"{variable}: {wanted}: {error.strerror}") from error
    for parent in _LINK_PARENTS:
        try:
            made = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="adprior-ray-", dir=parent, ignore_cleanup_errors=True
                )
            )
            link = Path(made) / "d"
            link.symlink_to(wanted)
        except OSError as error:
            reason = f"{parent}: {error.strerror}"
            continue
        return str(link)
    found = len(os.fsencode(os.environ[variable]))
    raise EnvironmentProblemError(
        f"{variable} has {found} characters, Ray's sockets below it leave room for "
        f"{_MOST_BYTES - len('/ray')} (AF_UNIX paths have {_SOCKET_BYTES}), and no short link to "
        f"it could be made ({reason}); set RAY_TMPDIR to a shorter directory"
    )
