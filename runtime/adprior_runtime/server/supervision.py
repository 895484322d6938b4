"""A server kept running: started again when it ends by itself, drained when it is stopped."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, TypeVar

from adprior_runtime.errors import AdpriorError, ArtefactError

_MINUTES: Final = 10
_STEADY_S: Final = 10.0
"""A server that ran for so long is started again at once."""
_LONGEST_PAUSE_S: Final = 30.0


class Supervised(Protocol):
    """What is kept of a `TritonServer`."""

    def wait(self) -> int:
        """Block until it ends by itself."""

    def failure(self) -> AdpriorError:
        """Tell why it did."""

    def serve_on(self, seconds: float) -> None:
        """Wait for so long, or until it ends."""

    def kill(self) -> None:
        """End it at once."""

    def stop(self) -> None:
        """End it, and clean up."""


_Server = TypeVar("_Server", bound=Supervised)


class StopRequested(BaseException):
    """A signal came that asks to stop.

    Attributes:
        is_orderly: Whether callers are to be let go first: SIGTERM, of an init system. Who sits at
            the terminal wants to be rid of it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.is_orderly = number == signal.SIGTERM


@dataclass(slots=True, kw_only=True)
class Restarts:
    """How often a server may be started again, and after what pause.

    Attributes:
        most: In ten minutes; 0 for never.
        clock: Seconds, rising.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    _at: deque[float] = field(default_factory=deque)
    _in_a_row: int = 0

    def pause_s(self, ran_s: float) -> float | None:
        """Return how long to wait before the next start; None where there is to be none.

        Args:
            ran_s: How long the last one ran; 0 where it did not start.
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
    """Keep a server running until too much goes wrong, or `StopRequested` is raised.

    Args:
        start: Starts one.
        announce: Says that it is ready.
        restarts: How often, and with what pauses.
        drain_s: How long a server that is asked to stop serves on.

    Returns:
        Why the last one ended.

    Raises:
        AdpriorError: The first did not start.
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
        _tell(f"the server stopped: {failure}; starting it again{after} ({restarts})")
        time.sleep(pause_s)
        try:
            server = start()
        except ArtefactError as error:  # what is damaged stays so
            return error
        except AdpriorError as error:  # a port may come free, a busy machine have time
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


def _tell(line: str) -> None:
    print(f"adprior serve: {line}", file=sys.stderr, flush=True)


def keep_previous(log_file: Path | None) -> None:
    """Move the log of a server that ended aside: the next one writes its own anew."""
    if log_file is not None and log_file.is_file() and not log_file.is_symlink():
        with contextlib.suppress(OSError):  # a directory that cannot be written
            log_file.replace(log_file.with_name(f"{log_file.name}.previous"))


@contextmanager
def signals_stop() -> Iterator[None]:
    """Turn the first two SIGINT, SIGTERM or SIGHUP into `StopRequested`; ignore more of them.

    The second is for who does not want to wait for what the first one began.
    """
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {each: signal.getsignal(each) for each in stopping}
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.append(number)
        if len(came) > 2:
            return
        raise StopRequested(number)

    for each in stopping:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
