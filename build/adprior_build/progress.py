"""Bars on standard error, with the time left, for work that may take more than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Final, TypeVar

from tqdm import tqdm

__all__ = ["shown"]

_T = TypeVar("_T")
_QUICK_S: Final = 2.0
"""What is over sooner shows nothing."""
_LINE_EVERY_S: Final = 10.0
"""In a log file each state of a bar is a line."""


def shown(items: Iterable[_T], *, what: str, unit: str, total: int | None = None) -> Iterator[_T]:
    """Yield items; show how many are done, and how long the others will take.

    Args:
        items: What there is to do.
        what: Goes before the bar.
        unit: What one item is called.
        total: How many there are, where ``items`` does not say.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    waiting = iter(items)
    first = list(islice(waiting, 1))  # what comes before it says nothing of how long others take
    bar: Iterable[_T] = tqdm(
        chain(first, waiting),
        desc=what,
        unit=unit,
        total=total,
        delay=_QUICK_S,
        leave=False,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LINE_EVERY_S,
    )
    yield from bar
