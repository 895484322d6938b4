"""Every error that adprior raises on purpose, with its gRPC status on the wire.

::

    AdpriorError                INTERNAL            a bug, or an unexpected fault
    ├── InvalidRequestError     INVALID_ARGUMENT    the caller's tensors or user context are wrong
    ├── InvalidInputError       INVALID_ARGUMENT    a file or option given to a command is wrong
    ├── ArtefactError           FAILED_PRECONDITION an artefact is missing, corrupt or not ours
    ├── EnvironmentProblemError FAILED_PRECONDITION this machine lacks something that serving needs
    │   └── ServerAbortedError                      the server aborted: another start may succeed
    ├── ModelOutputError        INTERNAL            the language model's output is invalid
    ├── DeviceFullError         UNAVAILABLE         a device has too little memory for a pass
    └── DeviceLostError         INTERNAL            a GPU needs its process to start again

Messages are one line: what was found, what was expected, where. They never quote a user's context.
"""

from __future__ import annotations

from enum import StrEnum


class InvalidReason(StrEnum):
    """The kind of fault in a request, which ``/metrics`` counts."""

    TOO_LARGE = "too_large"
    """The user context has too many bytes."""
    NOT_JSON = "not_json"
    """The context is not UTF-8, not JSON, or nested too deeply."""
    FIELD = "field"
    """A field of the context is missing, of the wrong type, or not a time."""
    OVER_BUDGET = "over_budget"
    """The profile alone exceeds the prompt's budget."""
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
    """The server or one of its processes aborted, without a fault of repository or machine."""


class ModelOutputError(AdpriorError):
    """An engine's output is invalid: NaN or +inf, or tensors that do not fit together."""


class DeviceFullError(AdpriorError):
    """A device has too little memory for a forward pass; a smaller or a later one may fit."""

    grpc_code = "UNAVAILABLE"


class DeviceLostError(AdpriorError):
    """A GPU's fault: nothing computes on it until its process starts again."""
