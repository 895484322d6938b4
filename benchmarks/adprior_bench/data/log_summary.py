"""A summary of an event log, printed before long work: rows, users, days, unusable events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adprior_build.data.event_log import UserHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """See the module.

    Attributes:
        events: Rows that were read.
        users: Users with at least one of them.
        with_profile: Of these, users that have a profile.
        first_day: Of the first event, empty without one.
        last_day: Of the last event.
        without_advertiser: Events that name no advertiser.
        off_catalogue: Events of an advertiser that the catalogue does not have.
        actions: How often each action comes, the most frequent first.
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
        """Count what a log holds.

        Args:
            users: Whole histories, ids of the catalogue replaced by names.
            is_known: Tells whether the catalogue has an advertiser of a name.
        """
        names: Counter[str | None] = Counter()
        actions: Counter[str] = Counter()
        for user in users:
            names.update(event.advertiser for event in user.events)
            actions.update(event.action for event in user.events)
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

    def sentence(self) -> str:
        """Return the figures in a line."""
        return (
            f"{self.events:,} events of {self.users:,} users ({self.with_profile:,} with a "
            f"profile), {self.first_day} to {self.last_day}; no ranker learns from "
            f"{self.without_advertiser + self.off_catalogue:,} of them: "
            f"{self.without_advertiser:,} name no advertiser, {self.off_catalogue:,} one that the "
            "catalogue does not have"
        )

    def action_words(self) -> str:
        """Return the actions as prose has them: ``review``, or several with their shares."""
        if len(self.actions) <= 1:
            return "".join(f"`{action}`" for action in self.actions)
        shown = [
            f"`{action}` {count / self.events:.0%}"
            for action, count in list(self.actions.items())[:_SHOWN_ACTIONS]
        ]
        others = len(self.actions) - len(shown)
        return ", ".join([*shown, *([f"{others} others"] if others else [])])

    def event_words(self) -> str:
        """Return what a user's events are called: after their action, where they have but one."""
        if len(self.actions) != 1 or "event" in self.actions:
            return "events"
        return f"{next(iter(self.actions))} events"

    def to_json(self) -> dict[str, Any]:
        """Return it as reports keep it for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


_SHOWN_ACTIONS = 4
