"""A thread that runs searches together: those of later requests join between forward passes.

Triton calls ``execute`` again when it has returned. So ``execute`` only hands its requests over
here, and each is answered when its search ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from adprior_runtime.engines.pass_loop import MOST_SEARCHES, PassLoop
from adprior_runtime.triton.process_end import end_process


class SearchThread:
    """Runs searches in a `PassLoop`.

    Args:
        most: Most searches at once. More requests wait in Triton's queue, which knows their
            priorities and their time limits.
    """

    def __init__(self, most: int = MOST_SEARCHES) -> None:
        self._most = most
        self._loop = PassLoop()
        self._changed = threading.Condition()
        self._arrived: deque[Callable[[], None]] = deque()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="adprior-searches", daemon=True)
        self._thread.start()
        self._clock = time.pthread_getcpuclockid(self._thread.ident or 0)
        self._worked = 0.0

    def clock(self) -> float:
        """Return the thread's CPU time in seconds; any thread may ask, also when it has ended."""
        with contextlib.suppress(OSError):
            self._worked = time.clock_gettime(self._clock)
        return self._worked

    def begin(self, searches: Sequence[Callable[[], None]]) -> None:
        """Wait until all searches have begun, which is between passes and when there is room.

        Args:
            searches: Each is called in the thread. It answers its request, and must not raise.
        """
        with self._changed:
            self._arrived.extend(searches)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._arrived)

    def stop(self) -> None:
        """Return when the last search has ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._admit_arrived():
                self._loop.step()
        except BaseException as error:  # noqa: BLE001  no request would be answered any more
            end_process(f"the searches' thread: {type(error).__name__}")

    def _admit_arrived(self) -> bool:
        """Begin what has arrived, as far as there is room; return whether a search waits.

        Returns False only at the end, else it blocks until there is something to do.
        """
        loop = self._loop
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._arrived or len(loop) or self._is_stopping)
                room = self._most - len(loop)
                new = [self._arrived[at] for at in range(min(room, len(self._arrived)))]
            for search in new:
                loop.admit(search)
            with self._changed:
                for _ in new:
                    self._arrived.popleft()
                self._changed.notify_all()
                if len(loop):
                    return True
                if self._is_stopping and not self._arrived:
                    return False
