"""Turns the exceptions of every kind of storage into one line of ours.

::

    AdpriorError
    ├── ArtefactError
    │   └── NotStoredError            an object is missing
    └── EnvironmentProblemError
        ├── StoreRefusedError         no permission
        └── StoreUnavailableError     unreachable, overloaded, timed out: it may pass
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from adprior_runtime.errors import AdpriorError, ArtefactError, EnvironmentProblemError

_LONGEST: Final = 300
_REFUSALS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of a local file system that another attempt does not mend."""


class NotStoredError(ArtefactError):
    """A URL lacks an object."""


class StoreRefusedError(EnvironmentProblemError):
    """The storage refuses: no permission, no space."""


class StoreUnavailableError(EnvironmentProblemError):
    """The storage did not answer, or not completely; another attempt may succeed."""


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Raise an exception of the storage again as one of ours, with the place.

    Args:
        where: The URL of the object.
    """
    try:
        yield
    except AdpriorError:
        raise
    except FileNotFoundError as error:
        raise NotStoredError(f"{where}: not found{_detail(error, where)}") from error
    except PermissionError as error:
        raise StoreRefusedError(f"{where}: no permission{_detail(error, where)}") from error
    except OSError as error:
        if error.errno in _REFUSALS or isinstance(error, FileExistsError | NotADirectoryError):
            raise StoreRefusedError(f"{where}: {error.strerror}") from error
        raise _by_status(error, where) from error
    # Each storage's package has its own tree of exceptions, and we cannot import them all.
    except Exception as error:
        raise _by_status(error, where) from error


def _by_status(error: Exception, where: str) -> AdpriorError:
    """Return our error for one that may carry an HTTP status."""
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    if status in {401, 403}:
        return StoreRefusedError(f"{where}: no permission (HTTP status {status})")
    if status in {404, 410}:
        return NotStoredError(f"{where}: not found")
    if status is not None:
        return StoreUnavailableError(f"{where}: HTTP status {status}")
    kind = type(error).__name__
    return StoreUnavailableError(f"{where}: {_first_line(error) or kind} ({kind})")


def _detail(error: Exception, where: str) -> str:
    """Return what an exception adds to the place and the kind of the problem."""
    text = _first_line(error)
    is_path = where.endswith(text.rpartition("/")[2]) if text else True
    return "" if is_path or text.startswith("[Errno") else f" ({text})"


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
