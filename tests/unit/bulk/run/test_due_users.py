from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adprior_bulk.inputs.shard_users import GivenUser
from adprior_bulk.run.due_users import Due, Previous, Rules, events_digest, why_due
from adprior_client.user_context import CheckedContext
from adprior_runtime.prompt.context import Event, UserContext

DAY = timedelta(days=1)
THEN = datetime(2024, 5, 1, tzinfo=UTC)
FAR = datetime.now(UTC) + 60 * 365 * DAY
RULES = Rules(as_of=THEN + DAY, max_age=7 * DAY, lateness=30 * DAY, bundle_id="b")


def _event(days_before: float, brand: str = "Acme") -> Event:
    return Event(time=THEN - days_before * DAY, action="purchase", advertiser=brand)


HISTORY = (_event(90), _event(40), _event(10), _event(10, "Birch"), _event(2))


def _context(*events: Event, as_of: datetime = THEN + DAY) -> GivenUser:
    ordered = sorted(events, key=lambda event: event.time)
    return GivenUser(CheckedContext(), UserContext(profile={}, history=ordered, as_of=as_of))


PREVIOUS = Previous(
    as_of=THEN,
    bundle_id="b",
    last_activity=HISTORY[-1].time,
    expires_at=THEN + 7 * DAY,
    counted_from=THEN - 30 * DAY,
    events_digest=events_digest(HISTORY[2:]),
)


@pytest.mark.parametrize(
    ("context", "previous", "rules", "due"),
    [
        (_context(*HISTORY), None, RULES, Due.NEW_USER),
        (_context(*HISTORY), PREVIOUS, RULES, Due.NO),
        (_context(*HISTORY, _event(-0.5)), PREVIOUS, RULES, Due.NEW_EVENTS),
        (_context(*HISTORY, _event(5)), PREVIOUS, RULES, Due.LATE_EVENTS),
        (_context(*HISTORY, _event(2, "Dune")), PREVIOUS, RULES, Due.LATE_EVENTS),
        (_context(*HISTORY, _event(60)), PREVIOUS, RULES, Due.NO),
        (_context(*HISTORY[2:]), PREVIOUS, RULES, Due.NO),
        (_context(*HISTORY[:-1]), PREVIOUS, RULES, Due.LATE_EVENTS),
        (_context(*HISTORY), PREVIOUS, replace(RULES, bundle_id="c"), Due.NEW_BUNDLE),
        (_context(*HISTORY), PREVIOUS, replace(RULES, everyone=True), Due.ASKED),
        (_context(*HISTORY, as_of=THEN + 7 * DAY), PREVIOUS, RULES, Due.EXPIRED),
        (_context(*HISTORY, as_of=THEN + 7 * DAY - DAY / 2), PREVIOUS, RULES, Due.NO),
        (_context(*HISTORY[:3], as_of=THEN - DAY), PREVIOUS, RULES, Due.NO),
        (_context(*HISTORY), replace(PREVIOUS, as_of=FAR), RULES, Due.FROM_FUTURE),
        (
            _context(*HISTORY),
            replace(PREVIOUS, as_of=FAR),
            replace(RULES, everyone=True),
            Due.FROM_FUTURE,
        ),
        (_context(), replace(PREVIOUS, last_activity=None, events_digest=0), RULES, Due.NO),
        (
            _context(_event(1)),
            replace(PREVIOUS, last_activity=None, events_digest=0),
            RULES,
            Due.NEW_EVENTS,
        ),
    ],
)
def test_why_users_are_due(
    context: GivenUser, previous: Previous | None, rules: Rules, due: Due
) -> None:
    assert why_due(context, previous, rules) is due


def test_the_digest_depends_on_the_events_but_not_on_their_order() -> None:
    events = [_event(5, f"brand {n}") for n in range(20)]
    expected = events_digest(events)
    shuffled = random.Random(1).sample(events, len(events))
    assert events_digest(shuffled) == expected
    assert events_digest([*events, events[0]]) != expected
    assert events_digest(events[1:]) != expected
    assert -(2**63) <= expected < 2**63
    assert events_digest([]) == 0
