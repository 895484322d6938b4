"""Reads one source in a thread of its own, so that a source that hangs delays no other one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Final

from adprior_client.server_sources import ServerSource

_GAP_S: Final = 0.2
"""Shortest time between two reads, however many servers fail."""


class SourceReader:
    """The thread of one source, and what waiting calls hear of it.

    Args:
        source: What is read.

    Attributes:
        source: What is read.
        reading: Held while the source is read and its answer is used.
        was_read: Whether a read has ended.
        next: Done once a read that is yet to begin has ended, or at `release`.
    """

    def __init__(self, source: ServerSource) -> None:
        self.source = source
        self.reading = threading.Lock()
        self.was_read = False
        self._wake = threading.Event()
        self._under_way, self.next = promise(), promise()

    def start(
        self, read: Callable[[SourceReader], bool], closed: threading.Event, interval_s: float
    ) -> None:
        """Start the thread, which ends after ``closed``, or when ``read`` returns False."""
        arguments = (read, closed, interval_s)
        threading.Thread(
            target=self._follow, args=arguments, name="adprior-discovery", daemon=True
        ).start()

    def wake(self) -> None:
        """Have the source read soon."""
        self._wake.set()

    def begin(self) -> None:
        """Note that a read begins."""
        self._wake.clear()
        self._under_way, self.next = self.next, promise()

    def end(self) -> None:
        """Note that the read has ended; calls that wait for it go on."""
        self.was_read = True
        settle(self._under_way)

    def release(self) -> None:
        """Let all calls that wait go on."""
        settle(self._under_way)
        settle(self.next)
        self.next = promise()

    def close(self) -> None:
        """End the thread, without waiting for it; all calls that wait go on, later ones too."""
        self._wake.set()
        settle(self._under_way)
        settle(self.next)

    def _follow(
        self, read: Callable[[SourceReader], bool], closed: threading.Event, interval_s: float
    ) -> None:
        while not closed.is_set() and read(self):
            closed.wait(_GAP_S)
            self._wake.wait(max(0.0, interval_s - _GAP_S))


def promise() -> Future[None]:
    """Return a future that waiting calls cannot cancel."""
    found: Future[None] = Future()
    found.set_running_or_notify_cancel()
    return found


def settle(made: Future[None]) -> None:
    """Set a promise's result, unless another thread was faster."""
    with suppress(InvalidStateError):
        made.set_result(None)
