"""Keeps a server running: restarts it when it ends by itself, drains it when it is stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, Protocol, TypeVar

from adprior_runtime.errors import AdpriorError, ArtefactError

_MINUTES: Final = 10
_STEADY_S: Final = 10.0
"""A server that ran this long is started again at once."""
_LONGEST_PAUSE_S: Final = 30.0


class Supervised(Protocol):
    """The methods of `TritonServer` that supervision uses."""

    def wait(self) -> int:
        """Block until it ends by itself."""

    def failure(self) -> AdpriorError:
        """Return why it ended."""

    def serve_on(self, seconds: float) -> None:
        """Wait ``seconds``, or until it ends."""

    def kill(self) -> None:
        """Kill it."""

    def stop(self) -> None:
        """End it, and clean up."""


_Server = TypeVar("_Server", bound=Supervised)


class StopRequested(BaseException):
    """A signal asks to stop.

    Attributes:
        is_orderly: Whether to drain callers first. True for SIGTERM, which init systems send. With
            another signal, a user at the terminal wants the command to end.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.is_orderly = number == signal.SIGTERM


@dataclass(slots=True, kw_only=True)
class Restarts:
    """Limits how often a server is restarted, and sets the pauses.

    Attributes:
        most: Largest number of restarts in ten minutes.
        clock: Returns monotonic seconds.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    _at: deque[float] = field(default_factory=deque)
    _in_a_row: int = 0

    def pause_s(self, ran_s: float) -> float | None:
        """Return how long to wait before the next start; None if the limit is reached.

        Args:
            ran_s: How long the last server ran; 0 if it did not start.
        """
        now = self.clock()
        while self._at and self._at[0] <= now - 60 * _MINUTES:
            self._at.popleft()
        if len(self._at) >= self.most:
            return None
        if ran_s >= _STEADY_S:
            self._in_a_row = 0
        pause = min(2.0 ** (self._in_a_row - 1), _LONGEST_PAUSE_S) if self._in_a_row else 0.0
        self._in_a_row += 1
        self._at.append(now + pause)
        return pause

    def __str__(self) -> str:
        return f"restart {len(self._at)} of at most {self.most} in {_MINUTES} minutes"


def serve_on(
    start: Callable[[], _Server],
    announce: Callable[[_Server], None],
    restarts: Restarts,
    *,
    drain_s: float = 0.0,
) -> AdpriorError:
    """Keep a server running until it has ended too often, or `StopRequested` is raised.

    Args:
        start: Starts a server.
        announce: Reports that it is ready.
        restarts: The limit and the pauses of restarts.
        drain_s: How long a server continues to serve after a request to stop.

    Returns:
        Why the last server ended.

    Raises:
        AdpriorError: The first server did not start.
    """
    server: _Server | None = start()
    failure: AdpriorError
    while True:
        began = restarts.clock()
        if server is not None:
            failure = _serve(server, announce, drain_s)
        pause_s = restarts.pause_s(restarts.clock() - began)
        if pause_s is None:
            return failure
        after = f" after {pause_s:g} s" if pause_s else ""
        print(
            f"adprior serve: the server stopped: {failure}; starting it again{after} ({restarts})",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(pause_s)
        try:
            server = start()
        except ArtefactError as error:  # a damaged repository stays damaged
            return error
        except AdpriorError as error:  # may pass: a port in use, a busy machine
            server, failure = None, error


def _serve(server: _Server, announce: Callable[[_Server], None], drain_s: float) -> AdpriorError:
    """Serve until the server ends by itself; return why."""
    try:
        announce(server)
        server.wait()
        return server.failure()
    except StopRequested as request:
        if request.is_orderly and drain_s:
            _drain(server, drain_s)
        raise
    finally:
        try:
            server.stop()
        except StopRequested:  # a second signal
            server.kill()
            server.stop()
            raise


def _drain(server: Supervised, drain_s: float) -> None:
    print(f"adprior: draining for {drain_s:g} s, then stopping", flush=True)
    try:
        server.serve_on(drain_s)
    except StopRequested:
        server.kill()


@contextmanager
def signals_stop() -> Iterator[None]:
    """Turn the first two SIGINT, SIGTERM or SIGHUP into `StopRequested`; ignore later signals.

    The second signal ends the drain that the first signal began.
    """
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {each: signal.getsignal(each) for each in stopping}
    received = 0

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal received
        received += 1
        if received <= 2:
            raise StopRequested(number)

    for each in stopping:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
