"""What can go wrong in a call, as one short tree.

::

    AdpriorError
    └── ClientError               catch this to go on without the forecast
        ├── InvalidArgumentError  the caller's fault: found before the wire, or by the server
        ├── DeadlineError         no answer in time
        ├── UnavailableError      no server there, or it is too busy, or it has no such model
        └── BadAnswerError        the server failed, or its answer breaks the contract

A gRPC status that is not in `STATUS_ERRORS` becomes a plain `ClientError`.
"""

from __future__ import annotations

from typing import Final

from adprior_runtime.errors import AdpriorError

__all__ = [
    "STATUS_ERRORS",
    "BadAnswerError",
    "ClientError",
    "DeadlineError",
    "InvalidArgumentError",
    "UnavailableError",
    "error_for_status",
]


class ClientError(AdpriorError):
    """Base of everything that a client raises."""


class InvalidArgumentError(ClientError):
    """The call's arguments are wrong; asking again unchanged cannot help."""

    grpc_code = "INVALID_ARGUMENT"


class DeadlineError(ClientError):
    """No answer came within the client's ``timeout_s``."""

    grpc_code = "DEADLINE_EXCEEDED"


class UnavailableError(ClientError):
    """Nobody there could take the request now; another server or a later try may."""

    grpc_code = "UNAVAILABLE"


class BadAnswerError(ClientError):
    """The server failed on the request, or answered with tensors that break the contract."""

    grpc_code = "INTERNAL"


STATUS_ERRORS: Final[dict[str, type[ClientError]]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "UNAVAILABLE": UnavailableError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "NOT_FOUND": UnavailableError,
    "INTERNAL": BadAnswerError,
    "UNKNOWN": BadAnswerError,
    "DATA_LOSS": BadAnswerError,
    "FAILED_PRECONDITION": BadAnswerError,
    "UNIMPLEMENTED": BadAnswerError,
}


def error_for_status(status: str | None) -> type[ClientError]:
    """Return the error that a gRPC status becomes.

    Args:
        status: As tritonclient has it (``StatusCode.UNAVAILABLE``) or bare (``UNAVAILABLE``).
    """
    return STATUS_ERRORS.get((status or "").removeprefix("StatusCode."), ClientError)
