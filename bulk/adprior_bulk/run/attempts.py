"""Contexts that kill their worker: found by elimination, so that they do not stop the rest.

A worker may die for any reason, and its shard is done again. Where one shard has cost several
workers, it is done with care: who is being forecast is noted before, and that it went well after.
A user who was noted last when two workers died is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from adprior_bulk.run.engines import Answer, Engine, Refused, Task
from adprior_runtime.errors import AdpriorError

_CARELESS: Final = 3
_DEATHS: Final = 2
_DIED: Final = Refused(code="INTERNAL", message=f"{_DEATHS} workers died while forecasting it")


class Attempts:
    """How often a shard was begun; told before it is begun again.

    Args:
        path: Where attempts at this shard are noted.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        noted = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        begun = Counter(line[1:] for line in noted if line.startswith("+"))
        begun.subtract(line[1:] for line in noted if line.startswith("-"))
        self._deaths = begun
        self.is_careful = noted.count("begin") >= _CARELESS
        self._note("begin")

    def forecast(self, engine: Engine, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """Forecast as the engine does; with care where workers have died."""
        if not self.is_careful:
            yield from engine.forecast(tasks)
            return
        for task in tasks:
            mark = task.user_id.encode().hex()
            if self._deaths[mark] >= _DEATHS:
                yield task, _DIED
                continue
            self._note(f"+{mark}")
            try:
                answers = list(engine.forecast([task]))
            except AdpriorError:  # the engine failed, and the worker lives
                self._note(f"-{mark}")
                raise
            self._note(f"-{mark}")
            yield from answers

    def _note(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
