"""Where a local Ray keeps its sessions: below ``TMPDIR``, by a short name where that is a long one.

The path of a Unix socket has at most 107 bytes, of which Ray's own part below its directory takes
over sixty. Batch systems set ``TMPDIR`` to longer ones than what is left; a symbolic link makes it
short, and Ray's files stay where the machine's owner wants them.
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
"""Where Ray's directory is taken from; the first that is set counts."""

_SOCKET_BYTES: Final = 107
_BELOW: Final = "/session_2026-11-29_23-59-59_999999_4194304/sockets/plasma_store"
_MOST_BYTES: Final = _SOCKET_BYTES - len(_BELOW)
_SHORT_PLACES: Final = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  private directories in them


@contextmanager
def short_directory() -> Iterator[str | None]:
    """Yield the directory for a local Ray, a link while it runs; None where its own will do.

    Raises:
        EnvironmentProblemError: ``TMPDIR`` is too long, and no short link to it can be made.
    """
    variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if variable is None:
        yield None
        return
    wanted = Path(os.environ[variable]).absolute() / "ray"
    if len(os.fsencode(wanted)) <= _MOST_BYTES:
        yield None
        return
    with ExitStack() as stack:
        yield _link(wanted, variable, stack)


def _link(wanted: Path, variable: str, stack: ExitStack) -> str:
    """Return a short link to a directory, which goes when the stack is left."""
    reason = ""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblemError(f"{variable}: {wanted}: {error.strerror}") from error
    for place in _SHORT_PLACES:
        try:
            made = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="adprior-ray-", dir=place, ignore_cleanup_errors=True
                )
            )
            link = Path(made) / "d"
            link.symlink_to(wanted)
        except OSError as error:
            reason = f"{place}: {error.strerror}"
            continue
        return str(link)
    found = len(os.fsencode(os.environ[variable]))
    raise EnvironmentProblemError(
        f"{variable} has {found} characters, Ray's sockets below it leave room for "
        f"{_MOST_BYTES - len('/ray')} (AF_UNIX paths have {_SOCKET_BYTES}), and no short link to "
        f"it could be made ({reason}); set RAY_TMPDIR to a shorter directory"
    )
