"""Bars on standard error, with the time left, for work that may take more than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any, Final, TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
_QUICK_S: Final = 2.0
"""Work that ends sooner shows no bar."""
_LINE_EVERY_S: Final = 10.0
"""In a log file each state of a bar is a line."""


def progress_bar(*, total: int, desc: str, unit: str, leave: bool = True) -> Any:
    """Return a bar to be moved by ``update``; a context manager.

    Args:
        total: Steps of the whole work.
        desc: What is done.
        unit: What a step is called.
        leave: Keep the bar on screen when the work is over.
    """
    return tqdm(total=total, desc=desc, unit=unit, leave=leave, **_settings())


def track(
    items: Iterable[_Item], *, desc: str, unit: str, total: int | None = None, leave: bool = True
) -> Iterator[_Item]:
    """Yield items; show how many are done, and how long the others will take.

    Args:
        items: What there is to do.
        desc: What is done.
        unit: What an item is called.
        total: How many there are, where ``items`` does not say.
        leave: Keep the bar on screen when the work is over.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    waiting = iter(items)
    first = list(islice(waiting, 1))  # what comes before it says nothing of how long others take
    bar: Iterable[_Item] = tqdm(
        chain(first, waiting), total=total, desc=desc, unit=unit, leave=leave, **_settings()
    )
    yield from bar


def pace() -> dict[str, float]:
    """Return tqdm's settings of how often a bar is drawn: less often where it goes into a file."""
    interval_s = 0.1 if sys.stderr.isatty() else _LINE_EVERY_S
    return {"mininterval": interval_s, "maxinterval": max(10.0, interval_s)}


def _settings() -> dict[str, Any]:
    return {"delay": _QUICK_S, "dynamic_ncols": True, **pace()}
