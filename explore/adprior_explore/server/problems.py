"""Errors as a browser sees them: a status, one line, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from adprior_client import (
    BadAnswerError,
    CancelledError,
    DeadlineError,
    DeniedError,
    InvalidArgumentError,
    OtherBundleError,
    OverloadedError,
    UnavailableError,
)
from adprior_runtime.errors import AdpriorError, InvalidInputError, InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong.

    Attributes:
        status: The HTTP status.
        error: What was found and what was expected, in one line, without a user's context.
        what_to_do: The next step, in one line.
    """

    status: HTTPStatus
    error: str
    what_to_do: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of an answer."""
        return {"error": self.error, "what_to_do": self.what_to_do}


class RefusedError(AdpriorError):
    """The page's own server refuses a request."""

    def __init__(self, status: HTTPStatus, error: str, what_to_do: str) -> None:
        super().__init__(error)
        self.problem = Problem(status=status, error=error, what_to_do=what_to_do)


_KNOWN: Final[tuple[tuple[type[AdpriorError], HTTPStatus, str], ...]] = (
    (InvalidArgumentError, HTTPStatus.BAD_REQUEST, "Correct what the line names."),
    (InvalidInputError, HTTPStatus.BAD_REQUEST, "Correct what the line names."),
    (InvalidRequestError, HTTPStatus.BAD_REQUEST, "Correct what the line names."),
    (
        DeadlineError,
        HTTPStatus.GATEWAY_TIMEOUT,
        "Wait until the server has less to do, or start adprior explore with a longer --timeout.",
    ),
    (
        DeniedError,
        HTTPStatus.BAD_GATEWAY,
        "Start adprior explore with the --token-file and the TLS options of this server.",
    ),
    (
        OtherBundleError,
        HTTPStatus.CONFLICT,
        "Store a forecast of the bundle that is served now, and compare with that one.",
    ),
    (
        OverloadedError,
        HTTPStatus.BAD_GATEWAY,
        "Try again: other requests keep this server busy.",
    ),
    (
        UnavailableError,
        HTTPStatus.BAD_GATEWAY,
        "Start the server (adprior serve --repository REPO). This page then connects by itself.",
    ),
    (CancelledError, HTTPStatus.BAD_GATEWAY, "Try again: the call was cancelled."),
    (
        BadAnswerError,
        HTTPStatus.BAD_GATEWAY,
        "Look into the server's log. If another version of adprior built its repository, build it "
        "again.",
    ),
)
"""The first match counts."""


def problem_of(error: Exception) -> Problem:
    """Return what a browser is told about an error."""
    if isinstance(error, RefusedError):
        return error.problem
    for kind, status, what_to_do in _KNOWN:
        if isinstance(error, kind):
            return Problem(status=status, error=str(error), what_to_do=what_to_do)
    return Problem(
        status=HTTPStatus.BAD_GATEWAY, error=str(error), what_to_do="Look into the server's log."
    )
