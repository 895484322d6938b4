"""Every error adprior raises on purpose, each with the gRPC status it becomes on the wire.

::

    AdpriorError                INTERNAL            a bug, or a fault nobody foresaw
    ├── InvalidRequestError     INVALID_ARGUMENT    the caller's tensors or user context are wrong
    ├── InvalidInputError       INVALID_ARGUMENT    a file or option given to a command is wrong
    ├── ArtefactError           FAILED_PRECONDITION an artefact is missing, corrupt or foreign
    ├── EnvironmentProblemError FAILED_PRECONDITION this machine lacks something that serving needs
    │   └── ServerAbortedError                      the server stumbled: another start may do
    └── ModelOutputError        INTERNAL            the language model gave no sound answer

Messages are one line: what was found, what was expected, where. They never quote a user's context.
"""

from __future__ import annotations

from enum import StrEnum


class InvalidReason(StrEnum):
    """What is wrong with a request, coarsely: counted at ``/metrics``, and never its content."""

    TOO_LARGE = "too_large"
    """More bytes than a user context may have."""
    NOT_JSON = "not_json"
    """The context is not UTF-8, not JSON, or nested without end."""
    FIELD = "field"
    """A field of the context is missing, of the wrong type, or no time."""
    OVER_BUDGET = "over_budget"
    """The profile alone fills the prompt."""
    TENSOR = "tensor"
    """A tensor's shape or values break the contract."""


class AdpriorError(Exception):
    """Base of every error raised on purpose; ``grpc_code`` names its gRPC status."""

    grpc_code = "INTERNAL"


class InvalidRequestError(AdpriorError):
    """A request's tensors or user context break the contract; the message names the field."""

    grpc_code = "INVALID_ARGUMENT"

    def __init__(self, message: str, reason: InvalidReason = InvalidReason.TENSOR) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidInputError(AdpriorError):
    """A file, option or setting given to a command is wrong."""

    grpc_code = "INVALID_ARGUMENT"


class ArtefactError(AdpriorError):
    """An artefact is missing, corrupt, or belongs to another bundle."""

    grpc_code = "FAILED_PRECONDITION"


class EnvironmentProblemError(AdpriorError):
    """The machine or Python environment lacks something; the message says what to install."""

    grpc_code = "FAILED_PRECONDITION"


class ServerAbortedError(EnvironmentProblemError):
    """The server gave itself or one of its processes up, by no fault of repository or machine."""


class ModelOutputError(AdpriorError):
    """An engine gave what is no answer: NaN or +inf, or tensors that do not fit one another."""
