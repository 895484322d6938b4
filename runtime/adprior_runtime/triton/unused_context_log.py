"""A log line, at most once a minute, about unused parts of user contexts.

Events after ``as_of`` or unknown advertisers are no errors, but make forecasts worse. The line has
counts only, no values.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from adprior_runtime.prompt.context_use import ContextUse

_INTERVAL_S: Final = 60.0


class UnusedContextLog:
    """Counts contexts; writes a line for the first unused part, then at most once a minute.

    Args:
        say: Called with the line.
        clock: Seconds, rising.
    """

    def __init__(
        self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._silent_until = -float("inf")
        self._counts: Counter[str] = Counter()

    def add(self, use: ContextUse) -> None:
        """Count one context."""
        known = use.advertisers if use.known_advertisers is None else use.known_advertisers
        self._counts.update(
            contexts=1,
            after_as_of=use.after_as_of,
            advertisers=use.advertisers,
            unknown_advertisers=use.advertisers - known,
            unknown_keys=use.unknown_keys or 0,
            over_budget=use.over_budget,
            reasons=bool(use.after_as_of or use.unknown_keys or known == 0 < use.advertisers),
        )
        if self._clock() < self._silent_until:
            return
        if self._counts["reasons"]:
            self._say(self._describe())
            self._silent_until = self._clock() + _INTERVAL_S
        self._counts.clear()

    def _describe(self) -> str:
        counts = self._counts
        phrases = (
            (counts["after_as_of"], "events after as_of (a time without a zone is UTC)"),
            (counts["unknown_advertisers"], f"of {counts['advertisers']} advertisers unknown"),
            (counts["unknown_keys"], "profile keys unknown"),
            (counts["over_budget"], "events over the prompt's budget"),
        )
        parts = ", ".join(f"{count} {what}" for count, what in phrases if count)
        return f"unused parts of {counts['contexts']} contexts: {parts}"
