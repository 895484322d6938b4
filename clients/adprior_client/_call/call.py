"""One call: the work, the client's settings, the deadline, and the steps that a driver does.

A call is a generator. It yields a step (`Attempt`, `Pause`, `Wait` or `Lookup`), receives the
step's outcome, and returns the result; it does no input or output itself. Two drivers run it,
`blocking_driver` and `asyncio_driver`, so both kinds of client behave the same.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from adprior_client._call.discovery import Discovery
from adprior_client._call.server_choice import Fleet, Server
from adprior_client._call.wire import Request
from adprior_client.checks import check_number
from adprior_client.config import ClientConfig
from adprior_client.types import Reason, UserId

Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one call, retries and other servers included.

    Attributes:
        timeout_s: The whole time of the call.
        ends_at: The end, on the clock of `time.monotonic`.
    """

    timeout_s: float
    ends_at: float

    @classmethod
    def start(cls, config: ClientConfig, deadline_s: float | None) -> Self:
        """Start the clock; without ``deadline_s`` the client's deadline is used."""
        timeout_s = config.deadline_s
        if deadline_s is not None:
            timeout_s = check_number(deadline_s, "deadline_s")
        return cls(timeout_s, time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds until the end, negative after it."""
        return self.ends_at - time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a client.

    Attributes:
        config: The client's settings.
        fleet: The client's servers.
        discovery: Where they were found.
        key: Chooses the user's server.
        deadline: When the call must return.
        request_id: Sent with each attempt.
        stored_user_id: Finds the user's stored forecast; None without an id or a source.
        held_for: The reason why nothing is sent; None if the request is sent.
    """

    config: ClientConfig
    fleet: Fleet
    discovery: Discovery
    key: bytes = field(repr=False)
    deadline: Deadline
    request_id: str
    stored_user_id: UserId | None = field(default=None, repr=False)
    held_for: Reason | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one server; its outcome is an `InferResult` or a `ClientError`."""

    server: Server
    request: Request
    timeout_s: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait between two attempts; its outcome is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an answer about the servers, or its timeout; its outcome is None."""

    answer: Future[None]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Lookup:
    """A lookup of a stored forecast; its outcome is None if the source fails or is late."""

    user_id: UserId
    timeout_s: float


Step: TypeAlias = Attempt | Pause | Wait | Lookup
Outcome: TypeAlias = Any
Steps: TypeAlias = Generator[Step, Outcome, Result_co]


class Run(Generic[Result_co]):
    """A call under way.

    Attributes:
        step: The step to do next; None once the call has its ``result``.
    """

    result: Result_co

    def __init__(self, steps: Steps[Result_co]) -> None:
        self._steps = steps
        self.step: Step | None = None
        self.resume(None)

    def resume(self, outcome: Outcome) -> None:
        """Continue with the outcome of the last step."""
        try:
            self.step = self._steps.send(outcome)
        except StopIteration as stop:
            self.step, self.result = None, stop.value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work(Generic[Result_co]):
    """A caller's request, checked and encoded: `Forecasting` or `Scoring`.

    Attributes:
        key: Chooses a server if there is no user id.
        user_id: Chooses the user's server, and finds their stored forecast.
        treatment: Whether the user is treated.
        name: The name of the call, for tracing.
    """

    name: ClassVar[str]

    key: bytes = field(repr=False)
    user_id: UserId | None = field(repr=False)
    treatment: bool

    def steps(self, call: Call) -> Steps[Result_co]:
        """Return the steps of a call that does this work."""
        raise NotImplementedError
