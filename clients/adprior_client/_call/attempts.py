"""The attempts at one request: the user's server first, then the others, until the deadline."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from numpy.typing import NDArray

from adprior_client._call.call import Attempt, Call, Outcome, Pause, Steps
from adprior_client._call.decoding import decode_bundle_id
from adprior_client._call.server_choice import Server
from adprior_client._call.wire import Request, read_answer
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    BadAnswerError,
    BreakerOpenError,
    ClientError,
    DeadlineError,
    OverloadedError,
)

_Result = TypeVar("_Result")
_Read: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], _Result]
_SHORTEST_S: Final = 1e-3
"""Shortest time for an attempt. If less is left, the call ends with an error."""
_FAIR_S: Final = 0.05
"""If the time left was below this and below ``deadline_s``, a missed deadline does not count
against the server."""


def ask(
    call: Call,
    request: Request,
    read: _Read[_Result],
    *,
    bundle_id: str = "",
    reserve_s: float = 0.0,
) -> Steps[_Result]:
    """Ask the user's server, and the next ones where that may help, until one answers well.

    Args:
        call: The call.
        request: What to ask.
        read: Makes the result from the outputs; if it fails, the answer is bad.
        bundle_id: Servers with this bundle come first.
        reserve_s: Part of the deadline to leave unused.

    Raises:
        ClientError: The last server's error.
    """
    config, last, attempts = call.config, None, 0
    for server in call.fleet.order(call.key, bundle_id):
        if attempts == config.max_attempts:
            break
        # If one server is overloaded, the others may be too: pause before asking the next.
        pause_s = _pause_s(config, attempts) if isinstance(last, OverloadedError) else 0.0
        left_s = call.deadline.left_s - reserve_s - pause_s
        if left_s < _SHORTEST_S:
            whole_s = call.deadline.timeout_s
            raise last or DeadlineError(f"{request.model}: no time left of {whole_s:.3g} s")
        if not server.breaker.admits():
            continue
        attempts += 1
        try:
            if pause_s:
                yield Pause(pause_s)
            outcome = yield Attempt(server, request, left_s, call.request_id)
            return _read(request, outcome, read, server)
        except ClientError as error:
            _report(error, server, is_fair=left_s >= min(_FAIR_S, config.deadline_s))
            if not error.may_go_on:
                raise
            last = error
            attempts -= error.is_absence
        except BaseException:  # the caller gave up, which says nothing about the server
            server.breaker.withdraw()
            raise
    raise last or BreakerOpenError(
        f"{request.model}: the circuit breaker of every server is open: "
        f"{', '.join(map(str, call.fleet.servers))}"
    )


def _report(error: ClientError, server: Server, *, is_fair: bool) -> None:
    if error.counts and (is_fair or not isinstance(error, DeadlineError)):
        server.fail(error.cause)
    else:
        server.breaker.withdraw()


def _pause_s(config: ClientConfig, attempts: int) -> float:
    """Return an exponential back-off with a jitter of 20 %, like gRPC's on one server."""
    longest = config.initial_backoff_s * config.backoff_multiplier ** (attempts - 1)
    return min(longest, config.max_backoff_s) * random.uniform(0.8, 1.2)  # noqa: S311


def _read(request: Request, outcome: Outcome, read: _Read[_Result], server: Server) -> _Result:
    if isinstance(outcome, ClientError):
        raise outcome
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
