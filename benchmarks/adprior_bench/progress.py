"""The bar of work that takes long: how much is done, and how much time is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from tqdm import tqdm

__all__ = ["boosting_bar", "progress_bar", "say", "track"]

_Item = TypeVar("_Item")

_DELAY_S: Final = 5.0
"""Work that ends sooner shows no bar."""
_LOG_INTERVAL_S: Final = 15.0
"""Between two lines of a log file; a terminal is told ten times a second."""


def say(command: str, *lines: str) -> None:
    """Tell what a command has found, beside its output."""
    for line in lines:
        print(f"{command}: {line}", file=sys.stderr, flush=True)


def progress_bar(*, total: int, desc: str, unit: str, leave: bool = True) -> Any:
    """Return a bar to be moved by ``update``; a context manager.

    Args:
        total: Steps of the whole work.
        desc: What is done.
        unit: What a step is.
        leave: Keep the bar on screen when the work is over.
    """
    return tqdm(total=total, desc=desc, unit=unit, leave=leave, **_settings())


def track(
    items: Iterable[_Item], *, desc: str, unit: str, total: int | None = None, leave: bool = True
) -> Iterable[_Item]:
    """Yield items and move a bar; see `progress_bar`."""
    found: Iterable[_Item] = tqdm(
        items, total=total, desc=desc, unit=unit, leave=leave, **_settings()
    )
    return found


@contextmanager
def boosting_bar(desc: str, rounds: int) -> Iterator[Callable[[Any], None]]:
    """Yield a callback for LightGBM that moves a bar by a round."""
    with progress_bar(total=rounds, desc=desc, unit="round", leave=False) as bar:
        yield lambda _: bar.update()


def _settings() -> dict[str, Any]:
    interval_s = 0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S
    return {
        "delay": _DELAY_S,
        "mininterval": interval_s,
        "maxinterval": max(10.0, interval_s),
        "dynamic_ncols": True,
    }
