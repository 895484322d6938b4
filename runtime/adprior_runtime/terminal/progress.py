"""Progress bars on standard error, with the time left, for work of more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any, Final, TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
_QUICK_S: Final = 2.0
"""Work that takes less time shows no bar."""
_LINE_EVERY_S: Final = 10.0
"""The interval in a log file, where each state of a bar is a line."""


def progress_bar(*, total: int, desc: str, unit: str, leave: bool = True) -> Any:
    """Return a progress bar, a context manager with a method ``update``.

    ``unit`` is the name of a step; ``leave`` keeps the bar on screen when the work is over. The
    unit ``B`` is bytes, which the bar shows as kB, MB or GB.
    """
    scale = {"unit_scale": unit == "B"}
    return tqdm(total=total, desc=desc, unit=unit, leave=leave, **scale, **_settings())


def track(
    items: Iterable[_Item], *, desc: str, unit: str, total: int | None = None, leave: bool = True
) -> Iterator[_Item]:
    """Yield items; show how many are done, and the time left.

    Give ``total`` if ``items`` has no length. `progress_bar` describes the other options.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    waiting = iter(items)
    first = list(islice(waiting, 1))  # the first item often takes longer than the others
    bar: Iterable[_Item] = tqdm(
        chain(first, waiting), total=total, desc=desc, unit=unit, leave=leave, **_settings()
    )
    yield from bar


def pace() -> dict[str, float]:
    """Return tqdm's settings for the interval between updates, which is longer in a file."""
    interval_s = 0.1 if sys.stderr.isatty() else _LINE_EVERY_S
    return {"mininterval": interval_s, "maxinterval": max(10.0, interval_s)}


def _settings() -> dict[str, Any]:
    return {"delay": _QUICK_S, "dynamic_ncols": True, **pace()}
