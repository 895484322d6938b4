"""Turns a user context into token ids, with one template and one tokenizer.

Each literal and each value is tokenised by itself and the ids are joined. So dropping an event
drops exactly its tokens, an advertiser's name has the same tokens in a history, in the
catalogue's trie and in a forecast, and no value becomes a special token (`ValueTokenizer`).
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from adprior_runtime.errors import ArtefactError
from adprior_runtime.prompt.budget import newest_events, room_for_events
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.template import (
    SECTION_FIELDS,
    PromptTemplate,
    coarse_number,
    day_fields,
    in_words,
)
from adprior_runtime.prompt.value_tokenizer import ValueTokenizer
from adprior_runtime.text.normalisation import fold_key, normalise_text

_EVENT_TEXTS: Final = ("advertiser", "category", "text")
"""The parts of an event that may be absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        token_ids: At most ``max_prompt_tokens`` of them.
        advertiser_spans: [start, stop) in ``token_ids`` of each advertiser in the history,
            terminator included.
        dropped_events: How many of the oldest events did not fit the budget.
    """

    token_ids: list[int]
    advertiser_spans: list[tuple[int, int]] = field(default_factory=list)
    dropped_events: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens of a literal, and the field that follows it."""

    literal_ids: tuple[int, ...]
    field: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """A rendered section of a prompt, an event's for example.

    Attributes:
        token_ids: Its tokens.
        span: [start, stop) of its advertiser's name in them, terminator included; None without one.
    """

    token_ids: list[int]
    span: tuple[int, int] | None


class PromptRenderer:
    """Renders prompts and canonical advertiser names.

    Args:
        template: The bundle's template.
        tokenizer: The bundle's tokenizer.
        cached_values: Number of values whose tokens are remembered: training renders the same
            values again and again. Serving remembers nothing of its requests.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: Tokenizer, *, cached_values: int = 0
    ) -> None:
        self.template = template
        self._encode = lru_cache(cached_values)(self._tokenize) if cached_values else self._tokenize
        end_id = tokenizer.token_to_id(template.terminator)
        if end_id is None:
            raise ArtefactError(
                f"prompt template: terminator {template.terminator!r} is not in the tokenizer"
            )
        self.end_id: int = end_id
        # Literals of the template may spell special tokens; values of a request never.
        tokenizer.encode_special_tokens = False
        self._sections = {
            name: [_compile(piece, tokenizer) for piece in getattr(template, name)]
            for name in SECTION_FIELDS
        }
        self._shows_times = "times" in template.event_fields()
        self._contents = template.event_contents()
        self._values = ValueTokenizer(tokenizer, end_id)
        self._denied = frozenset(map(fold_key, template.denied_profile_keys))

    @classmethod
    def load(cls, template_path: Path, tokenizer_path: Path) -> PromptRenderer:
        """Load ``prompt.json`` and ``tokenizer.json``."""
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtefactError(f"{tokenizer_path}: not a tokenizer: {error}") from error
        return cls(PromptTemplate.load(template_path), tokenizer)

    @property
    def head_ids(self) -> list[int]:
        """The tokens that every prompt begins with."""
        return self._render_section("head", {}).token_ids

    @property
    def interest_tail_ids(self) -> list[int]:
        """The tokens between a prompt and an interest's name."""
        return self._render_section("interest_tail", {}).token_ids

    def name_ids(self, name: str) -> list[int]:
        """Return the canonical tokens of an advertiser or interest, terminator included."""
        return [*self._encode(name), self.end_id]

    def denies(self, key: str) -> bool:
        """Whether the template keeps a profile key, in any spelling, out of the prompt."""
        return bool(self._denied) and fold_key(key) in self._denied

    def render(self, context: UserContext) -> Prompt:
        """Render a context within the budget, dropping the oldest events.

        Raises:
            InvalidRequestError: The profile alone exceeds the budget.
        """
        token_ids = self.start_ids(context.profile)
        history = context.history
        previous = self._shown_before(history)
        tail = self._render_section("tail", day_fields(context.as_of, previous[-1])).token_ids
        times = self._earlier_times(history)
        room = room_for_events(
            self.template.max_prompt_tokens, start=len(token_ids), tail=len(tail)
        )

        def newest(room: int) -> list[Section]:
            return newest_events(
                len(history),
                room,
                lambda index: self._render_event(history[index], previous, index, times),
                lambda section: section.token_ids,
            )

        events = newest(room)
        if len(events) < len(history) and (kept := self.room_for_earlier(room)):
            events = newest(room - kept)
            token_ids += self.earlier_ids(history[: len(history) - len(events)], kept)
        spans = []
        for section in events:
            if section.span is not None:
                start, stop = section.span
                spans.append((len(token_ids) + start, len(token_ids) + stop))
            token_ids.extend(section.token_ids)
        return Prompt(
            token_ids=token_ids + tail,
            advertiser_spans=spans,
            dropped_events=len(history) - len(events),
        )

    def start_ids(self, profile: Mapping[str, str]) -> list[int]:
        """Return the tokens before the history: the head and the profile."""
        token_ids = self.head_ids
        for key, value in profile.items():
            if not self.denies(key):
                values = {"key": key, "value": value, "pair": f"{key}={value}"}
                token_ids += self._render_section("profile", values).token_ids
        return token_ids

    def room_for_earlier(self, room: int) -> int:
        """Return how many of the history's ``room`` tokens the earlier sections may have.

        It is ``max_earlier_tokens``, but at most half: a long profile leaves room for events too.
        """
        return min(self.template.max_earlier_tokens, room // 2)

    def earlier_ids(self, dropped: Sequence[Event], room: int) -> list[int]:
        """Return the tokens for events that a prompt drops: their advertisers, as they fit.

        Those with most events come first, among equals the latest.

        Args:
            dropped: The events.
            room: Most tokens, from `room_for_earlier`.
        """
        names = [
            self.template.shown(event.advertiser or "") for event in dropped if self._shows(event)
        ]
        latest = {name: place for place, name in enumerate(names) if name}
        counts = Counter(name for name in names if name)
        token_ids: list[int] = []
        for name in sorted(counts, key=lambda name: (-counts[name], -latest[name])):
            values = {"advertiser": name}
            if counts[name] > 1:
                values["times"] = coarse_number(counts[name])
            found = self._render_section("earlier", values).token_ids
            if len(token_ids) + len(found) > room:
                break
            token_ids += found
        return token_ids

    def event_sections(self, history: Sequence[Event]) -> list[Section]:
        """Return the section of every event, as a prompt that shows the event has it."""
        previous = self._shown_before(history)
        times = self._earlier_times(history)
        return [
            self._render_event(event, previous, index, times) for index, event in enumerate(history)
        ]

    def tails_before(self, history: Sequence[Event]) -> list[list[int]]:
        """Return, for each event, the tail of a prompt of its day that shows the events before."""
        previous = self._shown_before(history)
        return [
            self._render_section("tail", day_fields(event.time, before)).token_ids
            for event, before in zip(history, previous[:-1], strict=True)
        ]

    def _shown_before(self, history: Sequence[Event]) -> list[datetime | None]:
        """Return the time of the last shown event before each event, and before the forecast."""
        previous: list[datetime | None] = [None]
        for event in history:
            previous.append(event.time if self._shows(event) else previous[-1])
        return previous

    def _shows(self, event: Event) -> bool:
        """Whether a prompt shows more of an event than its day; if not, the event is left out."""
        shown = {"action", *(n for n in _EVENT_TEXTS if normalise_text(getattr(event, n) or ""))}
        fills_a_piece = not self._contents or any(content <= shown for content in self._contents)
        return fills_a_piece and shown.issuperset(self.template.event_needs)

    def _earlier_times(self, history: Sequence[Event]) -> Sequence[int]:
        """Return, for each event, how many before it have its advertiser; nothing if not shown."""
        if not self._shows_times:
            return ()
        seen: Counter[str] = Counter()
        times = []
        for event in history:
            name = self.template.shown(event.advertiser or "")
            times.append(seen[name])
            seen[name] += 1
        return times

    def _render_event(
        self,
        event: Event,
        previous: Sequence[datetime | None],
        index: int,
        times: Sequence[int],
    ) -> Section:
        if not self._shows(event):
            return Section([], None)
        values = day_fields(event.time, previous[index])
        values["action"] = event.action
        for name in _EVENT_TEXTS:
            if normalise_text(value := getattr(event, name) or ""):
                values[name] = value
        if normalise_text(words := in_words(values.get("category", ""))):
            values["category_words"] = words
        if times and times[index] and "advertiser" in values:
            values["times"] = coarse_number(times[index])
        return self._render_section("event", values)

    def _render_section(self, name: str, values: Mapping[str, str]) -> Section:
        ids: list[int] = []
        span = None
        for parts in self._sections[name]:
            if any(p.field not in values for p in parts if p.field not in (None, "end")):
                continue
            for part in parts:
                ids.extend(part.literal_ids)
                if part.field == "end":
                    ids.append(self.end_id)
                    if span is not None and span[1] == len(ids) - 1:
                        span = (span[0], len(ids))
                elif part.field is not None:
                    start = len(ids)
                    ids.extend(self._encode(values[part.field]))
                    if part.field == "advertiser":
                        span = (start, len(ids))
        return Section(ids, span)

    def _tokenize(self, value: str) -> tuple[int, ...]:
        return self._values.encode(self.template.shown(value))


def _compile(piece: str, tokenizer: Tokenizer) -> list[_Part]:
    return [
        _Part(tuple(tokenizer.encode(literal, add_special_tokens=False).ids), key)
        for literal, key, _, _ in string.Formatter().parse(piece)
    ]
