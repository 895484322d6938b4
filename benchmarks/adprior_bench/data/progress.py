"""Messages and progress bars of benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adprior_runtime.terminal.progress import progress_bar


def say(command: str, *lines: str) -> None:
    """Print messages of a command on standard error."""
    for line in lines:
        print(f"{command}: {line}", file=sys.stderr, flush=True)


@contextmanager
def boosting_bar(desc: str, rounds: int) -> Iterator[Callable[[Any], None]]:
    """Yield a callback for LightGBM that advances a bar by one round."""
    with progress_bar(total=rounds, desc=desc, unit="round", leave=False) as bar:
        yield lambda _: bar.update()
