from __future__ import annotations

from typing import Any

from adprior_runtime.prompt.context_use import ContextUse
from adprior_runtime.triton.unused_context_log import UnusedContextLog


def use(**changed: Any) -> ContextUse:
    counts: dict[str, Any] = {
        "events": 40,
        "after_as_of": 0,
        "over_budget": 30,
        "advertisers": 5,
        "known_advertisers": 4,
        "profile_keys": 2,
        "denied_keys": 0,
        "unknown_keys": 0,
    }
    return ContextUse(**(counts | changed))


def test_a_line_reports_unused_parts_at_most_once_a_minute() -> None:
    said: list[str] = []
    now = [100.0]
    log = UnusedContextLog(said.append, clock=lambda: now[0])
    log.add(use())  # a long history and a stranger among its advertisers: as it should be
    assert said == []
    log.add(use(after_as_of=3))
    assert said == [
        "unused parts of 1 contexts: 3 events after as_of (a time without a zone is UTC), "
        "1 of 5 advertisers unknown, 30 events over the prompt's budget"
    ]
    for _ in range(3):
        log.add(use(known_advertisers=0, unknown_keys=2, over_budget=0))
    assert len(said) == 1
    now[0] += 60
    log.add(use())
    assert said[1:] == [
        "unused parts of 4 contexts: 16 of 20 advertisers unknown, 6 profile keys unknown, "
        "30 events over the prompt's budget"
    ]


def test_unknown_counts_are_no_reason_for_a_line() -> None:
    said: list[str] = []
    UnusedContextLog(said.append).add(use(known_advertisers=None, unknown_keys=None))
    assert said == []
