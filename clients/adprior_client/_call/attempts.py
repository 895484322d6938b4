"""How a call goes: which servers, in what order, until when. No input or output happens here.

A call is a generator: it yields an `Attempt`, a `Pause` or a `Lookup`, is sent what came of it,
and returns its result. Two small drivers run it, one that blocks (`blocking_driver`) and one for
asyncio (`asyncio_driver`); so both kinds of client behave the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from numpy.typing import NDArray

from adprior_client._call.decoding import decode_bundle_id
from adprior_client._call.server_choice import Fleet, Server
from adprior_client._call.wire import Request, read_answer
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    BadAnswerError,
    BreakerOpenError,
    ClientError,
    DeadlineError,
    OverloadedError,
)
from adprior_client.types import UserId

_Result = TypeVar("_Result")
_LEAST_S: Final = 1e-3
"""With less time left, an attempt is not worth a connection's while."""
_TELLING_S: Final = 0.05
"""A deadline that is missed after less than this (or `ClientConfig.deadline_s`) says nothing of the
server: callers pass on what is left of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What stays the same over a call's attempts.

    Attributes:
        key: Of the user, for the choice of servers.
        deadline: On the clock of `time.monotonic`.
        timeout_s: The whole time the caller gave, for messages.
        request_id: Travels with each attempt.
        user_id: Of the user, if the caller told.
    """

    key: bytes = field(repr=False)
    deadline: float
    timeout_s: float
    request_id: str
    user_id: UserId | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to one server; answered by an `InferResult` or a `ClientError`."""

    server: Server
    request: Request
    timeout_s: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait between two attempts; answered by None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Lookup:
    """A stored forecast; answered by what the source gives, None where it fails or is late."""

    user_id: UserId
    timeout_s: float


Step: TypeAlias = Attempt | Pause | Lookup
Outcome: TypeAlias = Any
"""Of an attempt, an `InferResult` or a `ClientError`."""
Steps: TypeAlias = Generator[Step, Outcome, _Result]


def ask(
    fleet: Fleet,
    config: ClientConfig,
    call: Call,
    request: Request,
    read: Callable[[Mapping[str, NDArray[Any]]], _Result],
    *,
    bundle_id: str = "",
    reserve_s: float = 0.0,
) -> Steps[_Result]:
    """Ask the user's server, and the next where that may help, until one answers well.

    Args:
        fleet: The servers.
        config: How often, and with what pauses.
        call: Whose, and until when.
        request: What.
        read: Makes the result of the outputs; its errors are the server's.
        bundle_id: Servers with that bundle are asked first.
        reserve_s: Part of the deadline to leave.

    Returns:
        What ``read`` made.

    Raises:
        ClientError: The last server's.
    """
    last: ClientError | None = None
    asked, telling_s = 0, min(_TELLING_S, config.deadline_s)
    for server in fleet.order(call.key, bundle_id):
        if asked == config.max_attempts:
            break
        # A server was overloaded: all may be, and are not to be made more so.
        pause_s = _pause_s(config, asked) if isinstance(last, OverloadedError) else 0.0
        left = call.deadline - reserve_s - time.monotonic() - pause_s
        if left < _LEAST_S:
            raise last or DeadlineError(f"{request.model}: no time left of {call.timeout_s:.3g} s")
        if not server.breaker.admits():
            continue
        asked += 1
        try:
            if pause_s:
                yield Pause(pause_s)
            outcome = yield Attempt(server, request, left, call.request_id)
            if isinstance(outcome, ClientError):
                raise outcome
            answer = _read(request, outcome, read, server)
        except ClientError as error:
            says_nothing = isinstance(error, DeadlineError) and left < telling_s
            if error.counts and not says_nothing:
                server.fail(error.cause)
            else:
                server.breaker.withdraw()
            if not error.may_go_on:
                raise
            last = error
            asked -= error.is_absence
            continue
        except BaseException:  # the caller gave up: nothing is known of the server
            server.breaker.withdraw()
            raise
        return answer
    raise last or BreakerOpenError(
        f"{request.model}: the circuit breaker of every server is open: "
        f"{', '.join(map(str, fleet.servers))}"
    )


def _pause_s(config: ClientConfig, asked: int) -> float:
    """Return an exponential back-off with jitter of a fifth, as gRPC's on one server."""
    longest = config.initial_backoff_s * config.backoff_multiplier ** (asked - 1)
    return min(longest, config.max_backoff_s) * random.uniform(0.8, 1.2)  # noqa: S311


def _read(
    request: Request,
    outcome: Outcome,
    read: Callable[[Mapping[str, NDArray[Any]]], _Result],
    server: Server,
) -> _Result:
    try:
        tensors = read_answer(request, outcome)
        server.bundle_id = decode_bundle_id(tensors)
        result = read(tensors)
    except ClientError as error:
        located = type(error)(f"{request.model} at {server.url}: {error}")
        located.may_go_on = error.may_go_on
        raise located from error
    except Exception as error:
        raise BadAnswerError(
            f"{request.model} at {server.url}: {type(error).__name__} on reading the answer"
        ) from error
    server.succeed()
    return result
