"""What can go wrong in a call, as one short tree.

::

    AdpriorError
    └── ClientError               status from the wire          reason    breaker  next server
        ├── InvalidArgumentError  INVALID_ARGUMENT              refused   -        -
        ├── DeadlineError         DEADLINE_EXCEEDED             deadline  counts   -
        ├── CancelledError        CANCELLED                     cancelled -        -
        ├── DeniedError           UNAUTHENTICATED,              denied    counts   -
        │   │                     PERMISSION_DENIED, and
        │   │                     UNAVAILABLE for a token's sake
        │   └── MetadataError     found here                    denied    -        -
        ├── UnavailableError      UNAVAILABLE, NOT_FOUND        unavailable  counts  yes
        │   ├── OverloadedError   RESOURCE_EXHAUSTED            unavailable  counts  yes, after a
        │   │                                                                        pause
        │   └── BreakerOpenError  found here                    breaker_open  -    -
        └── BadAnswerError        any other, or an answer that  bad_answer  counts -
            │                     breaks the contract
            └── OtherBundleError  found here                    other_bundle  -    yes

A wrong argument is an `InvalidArgumentError` before anything is sent, and always raised. The rest
is the server's, and raised only where `ClientConfig.fail_open` is off; otherwise its reason comes
back in the result.
"""

from __future__ import annotations

from typing import ClassVar, Final

from adprior_client.types import Reason
from adprior_runtime.errors import AdpriorError


class ClientError(AdpriorError):
    """Base of everything that a client raises.

    Attributes:
        reason: What a result says of it where the client fails open.
        counts: Whether it counts against the server, at its circuit breaker.
        may_go_on: Whether the next server may be asked: this one has not worked on the request.
        cause: What this side knows of why a server was not reached, such as a certificate; part of
            the message.
        is_absence: Whether nobody was there to take the request: the server is gone, or about to
            go. Asking the next one then costs none of a call's attempts.
    """

    reason: ClassVar[Reason] = Reason.BAD_ANSWER
    counts: ClassVar[bool] = True
    may_go_on: bool = False
    cause: str = ""
    is_absence: bool = False


class InvalidArgumentError(ClientError):
    """The call's arguments are wrong; asking again unchanged cannot help."""

    grpc_code = "INVALID_ARGUMENT"
    reason = Reason.REFUSED
    counts = False


class DeadlineError(ClientError):
    """No answer came before the call's deadline."""

    grpc_code = "DEADLINE_EXCEEDED"
    reason = Reason.DEADLINE


class CancelledError(ClientError):
    """The server, or the closing of the client, cancelled the call."""

    grpc_code = "CANCELLED"
    reason = Reason.CANCELLED
    counts = False


class DeniedError(ClientError):
    """The server does not take calls with these credentials."""

    grpc_code = "PERMISSION_DENIED"
    reason = Reason.DENIED


class MetadataError(DeniedError):
    """What to send along could not be made: the caller's own function failed."""

    counts = False


class UnavailableError(ClientError):
    """Nobody there could take the request now; another server or a later try may."""

    grpc_code = "UNAVAILABLE"
    reason = Reason.UNAVAILABLE


class OverloadedError(UnavailableError):
    """The server has more to do than it can."""

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
    """The server answered with another bundle than the forecast was made with."""

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
_PASSED_ON: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "NOT_FOUND")
_ABSENT: Final = (
    "Server is stopping",  # the steps of a server that was told to stop
    "has no available versions",  # the same, once it unloads its models, and NOT_FOUND
    "failed to connect to all addresses",
)
"""What tritonserver and gRPC say where nobody was there to take a request."""
_WANTS_TOKEN: Final = "protocol is restricted"  # noqa: S105
"""What tritonserver says, with the status UNAVAILABLE, where a token is missing or wrong."""


def error_for_status(status: str | None, message: str) -> ClientError:
    """Return the error that a gRPC status becomes.

    Args:
        status: As tritonclient has it (``StatusCode.UNAVAILABLE``) or bare (``UNAVAILABLE``).
        message: The error's.
    """
    name = (status or "").removeprefix("StatusCode.")
    if name == "UNAVAILABLE" and _WANTS_TOKEN in message:
        name, message = "PERMISSION_DENIED", f"{message}: wrong or no token (token_file)"
    error = _ERRORS.get(name, BadAnswerError)(message)
    error.may_go_on = name in _PASSED_ON
    error.is_absence = error.may_go_on and any(told in message for told in _ABSENT)
    return error
