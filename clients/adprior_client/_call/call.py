"""One call: the work, the client's settings, and the steps that a driver carries out.

A call is a generator. It yields a step (`Attempt`, `Pause` or `Lookup`), receives the step's
outcome, and returns the result; it does no input or output itself. Two drivers run it,
`blocking_driver` and `asyncio_driver`, so both kinds of client behave the same.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from adprior_client._call.deadline import Deadline
from adprior_client._call.server_choice import Fleet, Server
from adprior_client._call.wire import Request
from adprior_client.config import ClientConfig
from adprior_client.types import Reason, UserId

Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a client.

    Attributes:
        config: The client's settings.
        fleet: The client's servers.
        key: Chooses the user's server.
        deadline: When the call must return.
        request_id: Sent with each attempt.
        stored_user_id: Finds the user's stored forecast; None without an id or a source.
        held_for: Why nothing is to be sent; None if the request is to be sent.
    """

    config: ClientConfig
    fleet: Fleet
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
class Lookup:
    """A lookup of a stored forecast; its outcome is None if the source fails or is late."""

    user_id: UserId
    timeout_s: float


Step: TypeAlias = Attempt | Pause | Lookup
Outcome: TypeAlias = Any
Steps: TypeAlias = Generator[Step, Outcome, Result_co]


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
