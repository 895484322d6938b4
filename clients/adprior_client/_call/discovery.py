"""Keeps a client's list of servers up to date, in a thread of its own.

The thread reads every source at an interval, and soon after a server has failed. Calls never read a
source. They wait for an answer only if they know no server, or if all servers that they know are
gone, and not beyond their deadline. A source that fails keeps its last known servers.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final

from adprior_client.config import ClientConfig
from adprior_client.errors import UnavailableError
from adprior_client.forking import Forked, begin_anew_in_children
from adprior_client.server_sources import (
    Address,
    FixedServer,
    ServerSource,
    shares_of,
    source_of,
)

_log = logging.getLogger("adprior_client")
_GAP_S: Final = 0.2
"""Shortest time between two answers, however many servers fail."""
_HOLD_S: Final = 1.0
"""Longest time that a fork waits for a source that is being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryCounts:
    """What a client's ``dns:///`` and ``file:///`` have answered since the client was made.

    Attributes:
        answered: Answers with servers.
        changed: Answers that differ from the one before; the first one counts too.
        failed: Answers that failed or were empty: the last known servers stay.
    """

    answered: int = 0
    changed: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class Discovery(Forked):
    """The sources of a client's servers, and what they last answered.

    Args:
        config: The sources, and the interval.
        adopt: Called in the thread after each answer, to use ``servers``.

    Attributes:
        servers: The last known servers, each address once.
        first: Done once a server is known, or every source has been read.
        counts: What was answered.
    """

    def __init__(self, config: ClientConfig, adopt: Callable[[], None]) -> None:
        self._interval_s = config.discovery_interval_s
        self._adopt = adopt
        sources = [source_of(url) for url in config.urls]
        self._known: dict[ServerSource, tuple[Address, ...]] = {
            source: source.read() if isinstance(source, FixedServer) else () for source in sources
        }
        self._followed = [source for source in sources if not isinstance(source, FixedServer)]
        self._problems: dict[ServerSource, str] = {}
        self.servers = self._merge()
        self.counts = DiscoveryCounts()
        self._prepare()
        begin_anew_in_children(self)

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._holds_reading = False
        self._closed, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._under_way, self._next = _promise(), _promise()
        self.first = _promise()
        if self.servers:
            _settle(self.first)

    def _hold_still(self) -> None:
        """See `Forked._hold_still`: a child must not inherit the resolver in the midst of work."""
        self._holds_reading = self._reading.acquire(timeout=_HOLD_S)

    def _go_on(self) -> None:
        """See `Forked._go_on`."""
        if self._holds_reading:
            self._reading.release()

    def _begin_anew(self) -> None:
        """See `Forked._begin_anew`: the child knows the parent's servers and has no thread yet."""
        was_closed = self._closed.is_set()
        self._prepare()
        if was_closed:
            self.close()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is read any more."""
        return self._closed.is_set()

    @property
    def problem(self) -> str:
        """Why no server is known."""
        return "; ".join(tuple(self._problems.values())) or "not answered yet: " + ", ".join(
            source.url for source in self._followed
        )

    def start(self) -> None:
        """Start the thread, once, if there is anything to follow."""
        if self._thread is not None or not self._followed:
            return
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                arguments = (weakref.ref(self), self._closed, self._wake, self._interval_s)
                self._thread = threading.Thread(
                    target=_follow, args=arguments, name="adprior-discovery", daemon=True
                )
                self._thread.start()

    def renew(self) -> Future[None] | None:
        """Ask all sources soon, and return what is done after that; None if nothing can change."""
        if not self._followed:
            return None
        with self._lock:
            if not self._closed.is_set():
                self._wake.set()
            return self._next

    def close(self) -> None:
        """End the thread, without waiting for a source that hangs; calls that wait go on."""
        with self._lock:
            self._closed.set()
            self._wake.set()
            for promise in (self.first, self._under_way, self._next):
                _settle(promise)

    def read(self) -> None:
        """Read every source and use its answer at once; done in the thread."""
        with self._lock:
            if self._closed.is_set():
                return
            self._wake.clear()
            self._under_way, self._next = self._next, _promise()
        with self._reading:
            for source in self._followed:
                self._read(source)
                if self.servers:
                    _settle(self.first)
        for promise in (self.first, self._under_way):
            _settle(promise)

    def _read(self, source: ServerSource) -> None:
        try:
            found = source.read()
        except Exception as error:  # noqa: BLE001  the thread must go on
            self._fail(source, error)
        else:
            self._accept(source, found)
        self.servers = self._merge()
        if not self._closed.is_set():
            self._adopt()

    def _fail(self, source: ServerSource, error: Exception) -> None:
        """Count it, and log it once until the source answers or fails in another way."""
        self.counts = replace(self.counts, failed=self.counts.failed + 1)
        problem = str(error) if isinstance(error, UnavailableError) else type(error).__name__
        if self._problems.get(source) != problem:
            last = ", ".join(each.url for each in self._known[source]) or "none"
            _log.warning("adprior: %s; the last known servers stay: %s", problem, last)
        self._problems[source] = problem

    def _accept(self, source: ServerSource, found: tuple[Address, ...]) -> None:
        before, self._known[source] = self._known[source], found
        is_changed = shares_of(before) != shares_of(found)
        self.counts = replace(
            self.counts,
            answered=self.counts.answered + 1,
            changed=self.counts.changed + is_changed,
        )
        if self._problems.pop(source, None) is not None:
            _log.warning("adprior: %s answers again", source.url)
        if is_changed:
            listed = ", ".join(each.line for each in found)
            _log.info("adprior: %s: servers are now %s", source.url, listed)

    def _merge(self) -> tuple[Address, ...]:
        """Return each ``HOST:PORT`` once; a source that fails may know servers of long ago."""
        found: dict[str, Address] = {}
        for source in sorted(self._known, key=lambda source: source in self._problems):
            for address in self._known[source]:
                found.setdefault(address.url, address)
        return tuple(found.values())


def _follow(
    discovery: weakref.ref[Discovery],
    closed: threading.Event,
    wake: threading.Event,
    interval_s: float,
) -> None:
    """Read the sources until the client is closed, or gone without having been closed."""
    while (found := discovery()) is not None and not closed.is_set():
        found.read()
        del found
        closed.wait(_GAP_S)
        wake.wait(max(0.0, interval_s - _GAP_S))


def _promise() -> Future[None]:
    """Return a future that waiting calls cannot cancel."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise


def _settle(promise: Future[None]) -> None:
    with suppress(InvalidStateError):  # close() may be faster
        promise.set_result(None)
