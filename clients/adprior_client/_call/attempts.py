"""The attempts at one request: the user's server first, then the others, until the deadline."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

from numpy.typing import NDArray

from adprior_client._call.call import Attempt, Call, Outcome, Pause, Steps, Wait
from adprior_client._call.decoding import decode_bundle_id
from adprior_client._call.server_choice import Server
from adprior_client._call.wire import Request, read_answer
from adprior_client.config import ClientConfig
from adprior_client.errors import (
    BadAnswerError,
    BreakerOpenError,
    CancelledError,
    ClientError,
    DeadlineError,
    OverloadedError,
    UnavailableError,
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
    queue = _Queue(call, bundle_id, reserve_s)
    while attempts < config.max_attempts:
        server = yield from queue.take(last)
        if server is None:
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
    raise last or _nobody_asked(call, request.model)


class _Queue:
    """The servers to ask, each once: those of the list now, then those that join it."""

    def __init__(self, call: Call, bundle_id: str, reserve_s: float) -> None:
        self._call = call
        self._bundle_id = bundle_id
        self._reserve_s = reserve_s
        self._listed: Sequence[Server] = ()
        self._taken: list[Server] = []
        self._left: list[Server] = []

    def take(self, last: ClientError | None) -> Steps[Server | None]:
        """Return the next server; None if there is no other.

        If all are gone, or none is known, this waits for another list, within the deadline.

        Args:
            last: The error of the server before; None before any.
        """
        self._fill()
        if not self._left:
            is_gone = last is not None and last.is_absence
            yield from self._await_list(self._answers(is_gone=is_gone))
            self._fill()
        if not self._left:
            return None
        self._taken.append(self._left.pop(0))
        return self._taken[-1]

    def _answers(self, *, is_gone: bool) -> list[Future[None]]:
        """Return what to wait for; nothing if no answer can help."""
        if not self._call.fleet.servers:
            if not self._call.discovery.first.done():
                return [self._call.discovery.first]
            self._call.discovery.renew()  # for later calls: this one would wait in vain
            return []
        return self._call.discovery.renew() if is_gone else []

    def _await_list(self, answers: list[Future[None]]) -> Steps[None]:
        for answer in answers:
            left_s = self._call.deadline.left_s - self._reserve_s
            if left_s >= _SHORTEST_S and not answer.done():
                yield Wait(answer, left_s)

    def _fill(self) -> None:
        """Take the servers of a new list, once those before have been asked."""
        servers = self._call.fleet.servers
        if not self._left and servers is not self._listed:
            self._listed = servers
            ordered = self._call.fleet.order(self._call.key, self._bundle_id)
            self._left = [server for server in ordered if server not in self._taken]


def _nobody_asked(call: Call, model: str) -> ClientError:
    if servers := call.fleet.order(call.key):
        listed = ", ".join(map(str, servers))
        return BreakerOpenError(f"{model}: the circuit breaker of every server is open: {listed}")
    if call.discovery.is_closed:
        return CancelledError(f"{model}: the client was closed")
    if call.discovery.first.done():
        return UnavailableError(f"{model}: no server is known: {call.discovery.problem}")
    whole_s = call.deadline.timeout_s
    return DeadlineError(f"{model}: no server within {whole_s:.3g} s: {call.discovery.problem}")


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
