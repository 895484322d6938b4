"""Summaries of an event log, for reports and before a training: users, dates, unusable events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from adprior_build.data.event_log import UserHistory

_SHOWN_ACTIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """Counts of an event log.

    Attributes:
        events: Events of all users.
        users: Users with at least one event.
        with_profile: Users that also have a profile.
        first_day: Day of the first event, empty without events.
        last_day: Day of the last event, empty without events.
        without_advertiser: Events that name no advertiser.
        off_catalogue: Events whose advertiser is not in the catalogue.
        actions: Events by action, the most frequent first.
    """

    events: int
    users: int
    with_profile: int
    first_day: str = ""
    last_day: str = ""
    without_advertiser: int = 0
    off_catalogue: int = 0
    actions: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, users: Sequence[UserHistory], is_known: Callable[[str], bool]) -> LogSummary:
        """Count the events and users of a log.

        Args:
            users: Their histories, ids of the catalogue replaced by names.
            is_known: Tells whether the catalogue has an advertiser of this name.
        """
        names = Counter(event.advertiser for user in users for event in user.events)
        actions = Counter(event.action for user in users for event in user.events)
        without = names.pop(None, 0)
        ends = [(user.events[0].time, user.events[-1].time) for user in users if user.events]
        return cls(
            events=actions.total(),
            users=len(users),
            with_profile=sum(bool(user.profile) for user in users),
            first_day=min(first for first, _ in ends).date().isoformat() if ends else "",
            last_day=max(last for _, last in ends).date().isoformat() if ends else "",
            without_advertiser=without,
            off_catalogue=sum(
                count for name, count in names.items() if name and not is_known(name)
            ),
            actions=dict(actions.most_common()),
        )

    @property
    def unusable(self) -> int:
        """The number of events that name no advertiser of the catalogue."""
        return self.without_advertiser + self.off_catalogue

    def sentence(self) -> str:
        """Return the figures in one sentence, for reports."""
        return (
            f"{self.events:,} events of {self.users:,} users ({self.with_profile:,} with a "
            f"profile), {self.first_day} to {self.last_day}; {self.unusable:,} events are "
            f"unusable: {self.without_advertiser:,} have no advertiser, "
            f"{self.off_catalogue:,} have one that is not in the catalogue"
        )

    def action_words(self) -> str:
        """Return the actions for prose: ``review``, or several with their shares."""
        if len(self.actions) <= 1:
            return "".join(f"`{action}`" for action in self.actions)
        shown = [
            f"`{action}` {count / self.events:.0%}"
            for action, count in list(self.actions.items())[:_SHOWN_ACTIONS]
        ]
        others = len(self.actions) - len(shown)
        return ", ".join([*shown, *([f"{others} others"] if others else [])])

    def event_words(self) -> str:
        """Return the word for events in prose: "review events" if all have this one action."""
        if len(self.actions) != 1 or "event" in self.actions:
            return "events"
        return f"{next(iter(self.actions))} events"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of reports."""
        return asdict(self)


def describe_training_data(
    path: Path,
    is_known: Callable[[str], bool],
    *,
    read: Sequence[UserHistory],
    training: Sequence[UserHistory],
    validation: Sequence[UserHistory],
) -> list[str]:
    """Return lines about the data that was read, is trained on, and is left out.

    Args:
        path: The event log.
        is_known: Tells whether the catalogue has an advertiser of this name.
        read: All users with all events.
        training: Users to train on, with their events before the cut.
        validation: Users that choose the epoch, with their events before the cut.
    """
    log = LogSummary.of(read, is_known)
    kept = LogSummary.of([*training, *validation], is_known)
    kept_ids = {user.user_id for user in [*training, *validation]}
    others = [user for user in read if user.user_id not in kept_ids]
    events_after = log.events - kept.events - sum(len(user.events) for user in others)
    dates = f", {log.first_day} to {log.last_day}" if log.events else ""
    left_out = [
        (_count(others), len(others)),
        (f"{events_after:,} events on or after the cut", events_after),
        (
            f"{kept.unusable:,} events as targets: they name no advertiser of the catalogue",
            kept.unusable,
        ),
    ]
    lines = [
        f"{path}: {_count(read)}{dates}",
        f"trains on {_count(training)}, validates on {_count(validation)}",
    ]
    if said := [text for text, number in left_out if number]:
        lines.append(f"leaves out {'; '.join(said)}")
    return lines


def _count(users: Sequence[UserHistory]) -> str:
    return f"{sum(len(user.events) for user in users):,} events of {len(users):,} users"
