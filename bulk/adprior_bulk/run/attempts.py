"""Finds users whose context kills the worker, so that they do not stop the other users.

If a worker dies, for whatever reason, its shard is done again. From the fourth attempt on, every
user is logged before and after their forecast. A user is refused if two workers died between the
two entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from adprior_bulk.run.user_forecaster import Answer, Refused, Task, UserForecaster
from adprior_runtime.errors import AdpriorError

_ATTEMPTS_WITHOUT_LOG: Final = 3
_DEATHS: Final = 2
_DIED: Final = Refused(code="INTERNAL", message=f"{_DEATHS} workers died while forecasting it")


class Attempts:
    """The log of attempts at a shard; making one adds an attempt.

    Args:
        path: The log file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        logged = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._deaths = Counter(line[1:] for line in logged if line.startswith("+"))
        self._deaths.subtract(line[1:] for line in logged if line.startswith("-"))
        self._logs_users = logged.count("begin") >= _ATTEMPTS_WITHOUT_LOG
        self._log("begin")

    def forecast(
        self, forecaster: UserForecaster, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Answer]]:
        """Forecast tasks: together, or one by one with log entries after three attempts."""
        if not self._logs_users:
            yield from forecaster.forecast(tasks)
            return
        for task in tasks:
            user = task.user_id.encode().hex()
            if self._deaths[user] >= _DEATHS:
                yield task, _DIED
                continue
            self._log(f"+{user}")
            try:
                answers = list(forecaster.forecast([task]))
            except AdpriorError:  # the forecaster failed, but the worker lives
                self._log(f"-{user}")
                raise
            self._log(f"-{user}")
            yield from answers

    def _log(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
