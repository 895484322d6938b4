"""Objects that survive a fork: a child has no other threads, and may inherit locked locks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final


class Forked:
    """An object that is used in both processes after a fork."""

    def _hold_still(self) -> None:
        """Before a fork, wait briefly for the object's own threads to finish their work."""

    def _go_on(self) -> None:
        """After a fork, continue in the parent."""

    def _begin_anew(self) -> None:
        """After a fork, continue in the child, without the parent's threads and locks."""
        raise NotImplementedError


_all: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()
_held: Final[list[Forked]] = []
_lock: Final = threading.Lock()
"""Guards both collections. It is held during a fork, so that the child can release it."""


def begin_anew_in_children(item: Forked) -> None:
    """Call the object's methods at every fork while it lives."""
    with _lock:
        _all.add(item)


def _hold_all_still() -> None:
    _lock.acquire()  # released in both processes
    _held[:] = _all
    for item in _held:
        item._hold_still()


def _let_all_go_on() -> None:
    for item in _held:
        item._go_on()
    _held.clear()
    _lock.release()


def _begin_all_anew() -> None:
    for item in _held:
        item._begin_anew()
    _held.clear()
    _lock.release()


os.register_at_fork(
    before=_hold_all_still, after_in_parent=_let_all_go_on, after_in_child=_begin_all_anew
)
