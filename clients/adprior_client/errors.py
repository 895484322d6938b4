"""The errors of a call, as one short tree.

::

    AdpriorError
    └── ClientError               status from the wire          reason    breaker  next server
        ├── InvalidArgumentError  INVALID_ARGUMENT              refused   -        -
        ├── DeadlineError         DEADLINE_EXCEEDED             deadline  counts   -
        ├── CancelledError        CANCELLED                     cancelled -        -
        ├── DeniedError           UNAUTHENTICATED,              denied    counts   -
        │   │                     PERMISSION_DENIED, and
        │   │                     UNAVAILABLE for a missing
        │   │                     or wrong token
        │   └── MetadataError     by the client                 denied    -        -
        ├── UnavailableError      UNAVAILABLE, NOT_FOUND        unavailable  counts  yes
        │   ├── OverloadedError   RESOURCE_EXHAUSTED            unavailable  counts  yes, after a
        │   │                                                                        pause
        │   └── BreakerOpenError  by the client                 breaker_open  -    -
        └── BadAnswerError        any other, or an answer that  bad_answer  counts -
            │                     breaks the contract
            └── OtherBundleError  by the client                 other_bundle  -    yes

A wrong argument always raises `InvalidArgumentError`, before anything is sent. The other errors
come from the server: they are raised only if `ClientConfig.fail_open` is off. Otherwise the result
has their ``reason``.
"""

from __future__ import annotations

from typing import ClassVar, Final

from adprior_client.types import Reason
from adprior_runtime.errors import AdpriorError


class ClientError(AdpriorError):
    """Base of everything that a client raises.

    Attributes:
        reason: The reason in the result of a client that fails open.
        counts: Whether the error counts at the server's circuit breaker.
        may_go_on: Whether another server may be asked: this one has not worked on the request.
        cause: Why a server was not reached, if the client knows it (a certificate, a proxy); part
            of the message.
        is_absence: Whether the server is gone or stopping. Asking the next one then costs no
            attempt.
    """

    reason: ClassVar[Reason] = Reason.BAD_ANSWER
    counts: ClassVar[bool] = True
    may_go_on: bool = False
    cause: str = ""
    is_absence: bool = False


class InvalidArgumentError(ClientError):
    """An argument of the call is wrong; the same call cannot succeed later."""

    grpc_code = "INVALID_ARGUMENT"
    reason = Reason.REFUSED
    counts = False


class DeadlineError(ClientError):
    """No answer came before the call's deadline."""

    grpc_code = "DEADLINE_EXCEEDED"
    reason = Reason.DEADLINE


class CancelledError(ClientError):
    """The server cancelled the call, or the client was closed."""

    grpc_code = "CANCELLED"
    reason = Reason.CANCELLED
    counts = False


class DeniedError(ClientError):
    """The server refuses these credentials."""

    grpc_code = "PERMISSION_DENIED"
    reason = Reason.DENIED


class MetadataError(DeniedError):
    """The caller's metadata function failed, or returned what gRPC cannot send."""

    counts = False


class UnavailableError(ClientError):
    """No server took the request; another server, or a later call, may."""

    grpc_code = "UNAVAILABLE"
    reason = Reason.UNAVAILABLE


class OverloadedError(UnavailableError):
    """The server is overloaded."""

    grpc_code = "RESOURCE_EXHAUSTED"


class BreakerOpenError(UnavailableError):
    """Every server's circuit breaker is open: nothing was sent."""

    reason = Reason.BREAKER_OPEN
    counts = False


class BadAnswerError(ClientError):
    """The server failed on the request, or its answer breaks the contract."""

    grpc_code = "INTERNAL"
    reason = Reason.BAD_ANSWER


class OtherBundleError(BadAnswerError):
    """The forecast was made by another bundle than the server's."""

    reason = Reason.OTHER_BUNDLE
    counts = False
    may_go_on = True


_ERRORS: Final[dict[str, type[ClientError]]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": CancelledError,
    "UNAUTHENTICATED": DeniedError,
    "PERMISSION_DENIED": DeniedError,
    "UNAVAILABLE": UnavailableError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "NOT_FOUND": UnavailableError,
}
_TRY_NEXT: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "NOT_FOUND")
_ABSENT: Final = (
    "Server is stopping",  # after SIGTERM
    "has no available versions",  # later, when its models are unloaded (NOT_FOUND)
    "failed to connect to all addresses",
)
"""Messages of tritonserver and gRPC if no server took the request."""
_WANTS_TOKEN: Final = "protocol is restricted"  # noqa: S105
"""Message of tritonserver, with status UNAVAILABLE, if a token is missing or wrong."""


def error_for_status(status: str | None, message: str) -> ClientError:
    """Return the error of a gRPC status, such as ``StatusCode.UNAVAILABLE`` or ``UNAVAILABLE``."""
    name = (status or "").removeprefix("StatusCode.")
    if name == "UNAVAILABLE" and _WANTS_TOKEN in message:
        name, message = "PERMISSION_DENIED", f"{message}: wrong or no token (token_file)"
    error = _ERRORS.get(name, BadAnswerError)(message)
    error.may_go_on = name in _TRY_NEXT
    error.is_absence = error.may_go_on and any(part in message for part in _ABSENT)
    return error
