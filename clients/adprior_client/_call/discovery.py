"""Keeps a client's list of servers up to date, in threads of its own.

Each source has a thread, which reads it at an interval, and soon after a server has failed. Calls
never read a source. They wait for an answer only if they know no server, or if all servers that
they know are gone, and not beyond their deadline. A source that fails keeps its last known servers,
but not for long if another source answers.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Final

from adprior_client._call.source_reader import SourceReader, promise, settle
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
_HOLD_S: Final = 1.0
"""Longest time that a fork waits for sources that are being read."""
_KEPT_S: Final = 300.0
"""A source that fails for this long, while another one answers, loses its servers. Restarts of a
cluster's DNS are over by then; what still fails is a name that was removed, and its addresses may
soon belong to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryCounts:
    """What a client's ``dns:///`` and ``file:///`` have answered since the client was made.

    Attributes:
        answered: Answers with servers.
        changed: Answers that differ from the one before; the first one counts too.
        failed: Answers that failed or were empty.
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
        adopt: Called after each answer, in the source's thread, to use ``servers``.
        clock: A monotonic clock, in seconds.

    Attributes:
        servers: The last known servers, each address once.
        first: Done once a server is known, or every source has been read.
        complete: Done once every source has been read.
        counts: What was answered.
        readers: The sources that are followed.
    """

    def __init__(
        self,
        config: ClientConfig,
        adopt: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = config.discovery_interval_s
        self._adopt = adopt
        self._clock = clock
        sources = [source_of(url) for url in config.urls]
        self._known: dict[ServerSource, tuple[Address, ...]] = {
            source: source.read() if isinstance(source, FixedServer) else () for source in sources
        }
        self._problems: dict[ServerSource, str] = {}
        self._failing_since: dict[ServerSource, float] = {}
        self.servers = self._merge()
        self.counts = DiscoveryCounts()
        self._prepare()
        begin_anew_in_children(self)

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._using = threading.Lock()
        self._held: list[threading.Lock] = []
        self._closed = threading.Event()
        self._is_started = False
        self.readers = tuple(
            SourceReader(source) for source in self._known if not isinstance(source, FixedServer)
        )
        self.first, self.complete = promise(), promise()
        if self.servers:
            settle(self.first)
        if not self.readers:
            settle(self.complete)

    def _hold_still(self) -> None:
        """See `Forked._hold_still`: a child must not inherit the resolver in the midst of work."""
        end = time.monotonic() + _HOLD_S
        for reader in self.readers:
            if reader.reading.acquire(timeout=max(0.0, end - time.monotonic())):
                self._held.append(reader.reading)

    def _go_on(self) -> None:
        """See `Forked._go_on`."""
        while self._held:
            self._held.pop().release()

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
        unread = [reader.source.url for reader in self.readers if not reader.was_read]
        problems = [*self._problems.values()]
        if unread:
            problems.append("not answered yet: " + ", ".join(unread))
        return "; ".join(problems)

    def start(self) -> None:
        """Start the threads, once, if there is anything to follow."""
        if self._is_started or not self.readers:
            return
        with self._lock:
            if self._is_started or self._closed.is_set():
                return
            self._is_started = True
            read = _weak_read(weakref.ref(self))
            for reader in self.readers:
                reader.start(read, self._closed, self._interval_s)

    def renew(self) -> list[Future[None]]:
        """Ask all sources soon; return what a call waits for whose servers are gone.

        Each future is done once its source has been read again, or once any source has a new
        server. Sources without servers have none, unless no source has any: a call whose servers
        are gone waits for those who listed them. There is no future if nothing can change.
        """
        if not self.readers:
            return []
        with self._lock:
            if not self._closed.is_set():
                for reader in self.readers:
                    reader.wake()
            listing = [reader for reader in self.readers if self._known[reader.source]]
            return [reader.next for reader in listing or self.readers]

    def close(self) -> None:
        """End the threads, without waiting for a source that hangs; calls that wait go on."""
        with self._lock:
            self._closed.set()
            settle(self.first)
            settle(self.complete)
            for reader in self.readers:
                reader.close()

    def read(self, reader: SourceReader) -> None:
        """Read a source and use its answer; done in the source's thread."""
        with self._lock:
            if self._closed.is_set():
                return
            reader.begin()
        with reader.reading:
            try:
                answer: tuple[Address, ...] | Exception = reader.source.read()
            except Exception as error:  # noqa: BLE001  the thread must go on
                answer = error
            with self._using:
                self._use(reader.source, answer)
        with self._lock:
            reader.end()
            is_complete = all(each.was_read for each in self.readers)
            if is_complete:
                settle(self.complete)
            if is_complete or self.servers:
                settle(self.first)

    def _use(self, source: ServerSource, answer: tuple[Address, ...] | Exception) -> None:
        if isinstance(answer, Exception):
            self._fail(source, answer)
        else:
            self._accept(source, answer)
        before, self.servers = self.servers, self._merge()
        if self._closed.is_set():
            return
        self._adopt()
        if not set(self.servers) <= set(before):
            with self._lock:
                if not self._closed.is_set():
                    for reader in self.readers:
                        reader.release()

    def _fail(self, source: ServerSource, error: Exception) -> None:
        """Count it, and log it once until the source answers or fails in another way."""
        self.counts = replace(self.counts, failed=self.counts.failed + 1)
        problem = str(error) if isinstance(error, UnavailableError) else type(error).__name__
        last = ", ".join(each.url for each in self._known[source]) or "none"
        if self._problems.get(source) != problem:
            _log.warning("adprior: %s; the last known servers stay: %s", problem, last)
        self._problems[source] = problem
        if not self._another_answers():
            # All may fail for the same cause; then the servers are likely to be there still.
            self._failing_since.pop(source, None)
        elif self._clock() - self._failing_since.setdefault(source, self._clock()) >= _KEPT_S:
            if self._known[source]:
                _log.warning(
                    "adprior: %s still fails; its servers are forgotten: %s", source.url, last
                )
            self._known[source] = ()

    def _another_answers(self) -> bool:
        """Whether a source has answered with servers; an address that is given never fails."""
        return any(
            self._known[reader.source] and reader.source not in self._problems
            for reader in self.readers
        )

    def _accept(self, source: ServerSource, found: tuple[Address, ...]) -> None:
        before, self._known[source] = self._known[source], found
        is_changed = shares_of(before) != shares_of(found)
        self.counts = replace(
            self.counts,
            answered=self.counts.answered + 1,
            changed=self.counts.changed + is_changed,
        )
        self._failing_since.pop(source, None)
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


def _weak_read(discovery: weakref.ref[Discovery]) -> Callable[[SourceReader], bool]:
    """Return a function that reads a source; False if the client is gone, though not closed."""

    def read(reader: SourceReader) -> bool:
        if (found := discovery()) is None:
            return False
        found.read(reader)
        return True

    return read
