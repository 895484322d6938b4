"""What begins anew in a forked process: threads are gone there, and locks may be held for ever."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final


class Forked:
    """What lives on in both processes after a fork."""

    def _hold_still(self) -> None:
        """Finish what threads of ours are at before the process forks; do not wait long."""

    def _go_on(self) -> None:
        """Go on in the parent."""

    def _begin_anew(self) -> None:
        """Go on in the child, without what the parent's threads held or did."""
        raise NotImplementedError


_all: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()
_held: Final[list[Forked]] = []
_lock: Final = threading.Lock()
"""Of both; held while a process forks, so that the child's is free."""


def begin_anew_in_children(thing: Forked) -> None:
    """Have a thing told of every fork while it lives."""
    with _lock:
        _all.add(thing)


def _hold_all_still() -> None:
    _lock.acquire()  # released in both processes
    _held[:] = _all
    for thing in _held:
        thing._hold_still()


def _let_all_go_on() -> None:
    for thing in _held:
        thing._go_on()
    _held.clear()
    _lock.release()


def _begin_all_anew() -> None:
    for thing in _held:
        thing._begin_anew()
    _held.clear()
    _lock.release()


os.register_at_fork(
    before=_hold_all_still, after_in_parent=_let_all_go_on, after_in_child=_begin_all_anew
)
