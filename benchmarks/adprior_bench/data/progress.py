"""Messages and bars of benchmarks that `adprior_runtime.terminal.progress` does not have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adprior_runtime.terminal.progress import progress_bar


def say(command: str, *lines: str) -> None:
    """Tell what a command has found, beside its output."""
    for line in lines:
        print(f"{command}: {line}", file=sys.stderr, flush=True)


@contextmanager
def boosting_bar(desc: str, rounds: int) -> Iterator[Callable[[Any], None]]:
    """Yield a callback for LightGBM that moves a bar by a round."""
    with progress_bar(total=rounds, desc=desc, unit="round", leave=False) as bar:
        yield lambda _: bar.update()
