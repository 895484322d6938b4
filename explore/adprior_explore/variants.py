"""The same user without the profile, without one event, without one advertiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adprior_runtime.prompt.context import parse_time
from adprior_runtime.text.normalisation import normalise_text

MOST_EVENTS: Final = 40
"""Most events that are left out one by one: the latest ones."""
MOST_ADVERTISERS: Final = 40
"""Most advertisers that are left out one by one: those of the latest events."""
_LABEL_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A user without a part of the context.

    Attributes:
        kind: What is left out.
        label: The same in words.
        event_index: The event's place in the history, if it is one event.
        advertiser: The advertiser of what is left out, if there is one.
        events: How many events are left out.
        document: The context without it.
    """

    kind: Literal["profile", "event", "advertiser"]
    label: str = field(repr=False)
    event_index: int | None = None
    advertiser: str | None = field(default=None, repr=False)
    events: int = 0
    document: Mapping[str, Any] = field(repr=False)


def leave_out(user: Mapping[str, Any]) -> list[Variant]:
    """Return a user's variants: the profile, the latest events, advertisers with several events.

    At most 81, each about as long as the user.
    """
    return [*_without_profile(user), *_without_events(user), *_without_advertisers(user)]


def describe_skipped(user: Mapping[str, Any]) -> str | None:
    """Return which events and advertisers are not left out; None if all are."""
    events, advertisers = len(user.get("history", ())), len(_repeated_advertisers(user))
    parts = []
    if events > MOST_EVENTS:
        parts.append(f"the latest {MOST_EVENTS} of {events} events")
    if advertisers > MOST_ADVERTISERS:
        several = f"{advertisers} advertisers with several events"
        parts.append(f"the latest {MOST_ADVERTISERS} of {several}")
    return f"Only {' and '.join(parts)} were left out one by one." if parts else None


def _without_profile(user: Mapping[str, Any]) -> Iterator[Variant]:
    if user.get("profile"):
        yield Variant(kind="profile", label="profile", document={**user, "profile": {}})


def _without_events(user: Mapping[str, Any]) -> Iterator[Variant]:
    history: Sequence[Mapping[str, Any]] = user.get("history", ())
    for place in sorted(_by_time(history)[-MOST_EVENTS:]):
        yield Variant(
            kind="event",
            label=_describe(history[place]),
            event_index=place,
            advertiser=history[place].get("advertiser"),
            events=1,
            document={**user, "history": [*history[:place], *history[place + 1 :]]},
        )


def _without_advertisers(user: Mapping[str, Any]) -> Iterator[Variant]:
    history: Sequence[Mapping[str, Any]] = user.get("history", ())
    names = _names(history)
    counts = _repeated_advertisers(user)
    for name in list(counts)[-MOST_ADVERTISERS:]:
        rest = [event for event, named in zip(history, names, strict=True) if named != name]
        yield Variant(
            kind="advertiser",
            label=f"{name} ({counts[name]} events)",
            advertiser=name,
            events=counts[name],
            document={**user, "history": rest},
        )


def _repeated_advertisers(user: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of events of each advertiser with several, the latest one last."""
    history: Sequence[Mapping[str, Any]] = user.get("history", ())
    names = _names(history)
    latest_first = dict.fromkeys(names[place] for place in reversed(_by_time(history)))
    counts = Counter(names)
    return {name: counts[name] for name in reversed(latest_first) if name and counts[name] > 1}


def _names(history: Sequence[Mapping[str, Any]]) -> list[str]:
    return [normalise_text(event.get("advertiser") or "") for event in history]


def _by_time(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the events' places in the history, the latest last."""
    return sorted(range(len(history)), key=lambda place: parse_time(history[place]["time"], ""))


def _describe(event: Mapping[str, Any]) -> str:
    parts = (event["time"], event["action"], event.get("advertiser") or event.get("category"))
    words = " ".join(str(part) for part in parts if part)
    return words[:_LABEL_CHARACTERS]
