"""Why a tritonserver did not start: one line, taken out of its log."""

from __future__ import annotations

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
_GIVEN_UP: Final = re.compile(
    r"Stub process '[^']+' is not healthy|Failed to obtain the health mutex"
)
# Said on every machine without a GPU, of no consequence.
_LOGGED_ERROR: Final = re.compile(
    r'^E\d{4} \S+ \d+ \S+\] "?+((?!CudaDriverHelper|unable to create stream).+)$', re.MULTILINE
)
_ERRORS: Final[dict[str, type[AdpriorError]]] = {
    error.__name__: error for error in (ArtefactError, EnvironmentProblemError)
}
_READ_BYTES: Final = 256 * 1024
_OWN_LINE: Final = re.compile(rb"^[IWE]\d{4} \d\d:\d\d:\d\d", re.MULTILINE)


def has_begun(log_file: Path) -> bool:
    """Return whether a server has written a line of its own, by when it has read its flags.

    Others may come before: a dynamic linker's, say.
    """
    try:
        with log_file.open("rb") as file:
            return _OWN_LINE.search(file.read(_READ_BYTES)) is not None
    except OSError:
        return False


def explain_failure(log_file: Path) -> AdpriorError | None:
    """Return what a server's log says it failed of, as an error to raise; None if it says nothing.

    An error of ours, raised by a model while it loaded, comes back as itself. What is read is the
    end of the log, where a server that did not start tells why.
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
        # Of an engine that cannot be read, TensorRT tells why on lines of its own.
        if told := explain_gpu_fault(text if "deserialize" in why else why):
            return EnvironmentProblemError(f"model {model}: {told}")
    if reasons:
        model, why = reasons[0]
        failed = ServerAbortedError if _GIVEN_UP.search(why) else ArtefactError
        return failed(f"model {model} did not load: {why}")
    if fatal := _FATAL.findall(text):
        # The last words are mostly "failed to load all models"; the log knows more.
        why = (_LOGGED_ERROR.findall(text) or fatal)[-1]
        return EnvironmentProblemError(f"tritonserver: {_one_line(why)}")
    if aborted := _ABORTED.search(text):
        kind, what = aborted["kind"], aborted["what"]
        # Boost's exceptions say nothing but their own name.
        told = kind if what in {None, kind} else f"{kind}: {_one_line(what)}"
        return ServerAbortedError(f"tritonserver aborted by itself: {told}")
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
