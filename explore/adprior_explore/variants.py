"""The same user without the profile, without one event, without one advertiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adprior_runtime.prompt.context import parse_time
from adprior_runtime.text.normalisation import normalise_text

MOST_EVENTS: Final = 40
"""Most events that are left out one by one: the latest ones."""
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
    """Return a user's variants: the profile, the latest events, advertisers with several events."""
    return [*_without_profile(user), *_without_events(user), *_without_advertisers(user)]


def _without_profile(user: Mapping[str, Any]) -> Iterator[Variant]:
    if user.get("profile"):
        yield Variant(kind="profile", label="profile", document={**user, "profile": {}})


def _without_events(user: Mapping[str, Any]) -> Iterator[Variant]:
    history: Sequence[Mapping[str, Any]] = user.get("history", ())
    latest = sorted(range(len(history)), key=lambda place: parse_time(history[place]["time"], ""))
    for place in sorted(latest[-MOST_EVENTS:]):
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
    names = [normalise_text(event.get("advertiser") or "") for event in history]
    for name in dict.fromkeys(names):
        count = names.count(name)
        if not name or count < 2:
            continue
        rest = [event for event, named in zip(history, names, strict=True) if named != name]
        yield Variant(
            kind="advertiser",
            label=f"{name} ({count} events)",
            advertiser=name,
            events=count,
            document={**user, "history": rest},
        )


def _describe(event: Mapping[str, Any]) -> str:
    parts = (event["time"], event["action"], event.get("advertiser") or event.get("category"))
    words = " ".join(str(part) for part in parts if part)
    return words[:_LABEL_CHARACTERS]
