"""The server's log file: kept at the next start, and read to explain a failure."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final

from adprior_runtime.engines.gpu_faults import explain_gpu_fault
from adprior_runtime.errors import (
    AdpriorError,
    ArtefactError,
    EnvironmentProblemError,
    ServerAbortedError,
)

_FAILED_MODEL: Final = re.compile(
    r"(?:failed to load '(?P<model>[^']+)' version \d+"
    r"|Poll failed for model directory '(?P<unread>[^']+)'): (?P<why>.+)"
)
_RAISED: Final = re.compile(r"\b(?P<error>ArtefactError|EnvironmentProblemError): (?P<message>.+)")
_STACK: Final = re.compile(
    r'\s*(?:\\n|\n)\s*(?:At:|Traceback|\d+\s+0x[0-9a-f]{6}).*|"\s*$', re.DOTALL
)
_FATAL: Final = re.compile(r"^error: (.+)$", re.MULTILINE)
_ABORTED: Final = re.compile(
    r"^terminate called after throwing an instance of '(?P<kind>[^']+)'"
    r"(?:\n\s*what\(\):\s*(?P<what>.+))?",
    re.MULTILINE,
)
_MODEL_ABORTED: Final = re.compile(
    r"Stub process '[^']+' is not healthy|Failed to obtain the health mutex"
)
# The two excluded errors appear on every machine without a GPU, and are harmless.
_LOGGED_ERROR: Final = re.compile(
    r'^E\d{4} \S+ \d+ \S+\] "?+((?!CudaDriverHelper|unable to create stream).+)$', re.MULTILINE
)
_ERRORS: Final[dict[str, type[AdpriorError]]] = {
    error.__name__: error for error in (ArtefactError, EnvironmentProblemError)
}
_READ_BYTES: Final = 256 * 1024
_OWN_LINE: Final = re.compile(rb"^[IWE]\d{4} \d\d:\d\d:\d\d", re.MULTILINE)


def keep_previous(log_file: Path | None) -> None:
    """Rename the log of a server that ended to ``FILE.previous``: the next one overwrites it."""
    if log_file is not None and log_file.is_file() and not log_file.is_symlink():
        with contextlib.suppress(OSError):  # a directory that cannot be written
            log_file.replace(log_file.with_name(f"{log_file.name}.previous"))


def has_begun(log_file: Path) -> bool:
    """Whether the server has written a line of its own; it has read its flags by then.

    Lines of others may come before, such as the dynamic linker's.
    """
    try:
        with log_file.open("rb") as file:
            return _OWN_LINE.search(file.read(_READ_BYTES)) is not None
    except OSError:
        return False


def explain_failure(log_file: Path) -> AdpriorError | None:
    """Return the reason of a failure as an error to raise; None if the log does not give one.

    If a model raised an error of adprior while it loaded, the result is the same error. Only the
    end of the log is read: a server that did not start gives the reason there.
    """
    text = _read_end(log_file)
    reasons = [
        (match["model"] or match["unread"], _one_line(match["why"]))
        for match in _FAILED_MODEL.finditer(text)
    ]
    for model, why in reasons:
        if raised := _RAISED.search(why):
            return _ERRORS[raised["error"]](f"model {model}: {raised['message']}")
    for model, why in reasons:
        # TensorRT explains on other lines why an engine cannot be read.
        if fault := explain_gpu_fault(text if "deserialize" in why else why):
            return EnvironmentProblemError(f"model {model}: {fault}")
    if reasons:
        model, why = reasons[0]
        failed = ServerAbortedError if _MODEL_ABORTED.search(why) else ArtefactError
        return failed(f"model {model} did not load: {why}")
    if fatal := _FATAL.findall(text):
        # The last line is mostly "failed to load all models"; earlier lines are more precise.
        why = (_LOGGED_ERROR.findall(text) or fatal)[-1]
        return EnvironmentProblemError(f"tritonserver: {_one_line(why)}")
    if aborted := _ABORTED.search(text):
        kind, what = aborted["kind"], aborted["what"]
        # The text of Boost's exceptions is only their own name.
        reason = kind if what in {None, kind} else f"{kind}: {_one_line(what)}"
        return ServerAbortedError(f"tritonserver aborted by itself: {reason}")
    return None


def _one_line(text: str) -> str:
    """Drop the stack trace, which the log writes with escaped line ends, and the closing quote."""
    return " ".join(_STACK.sub("", text).replace("\\n", " ").split())


def _read_end(file: Path) -> str:
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - _READ_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
