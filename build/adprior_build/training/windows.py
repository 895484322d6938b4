"""Training windows: users' histories cut into pieces, rendered as serving renders a prompt.

A window is the head and the profile, then consecutive events. Each event of a history is new in one
window; before the new events a window repeats some older ones, so that they have a context::

    history   a b c d e f g h i
    window 0  a b c d
    window 1      c d e f g             c and d were targets in window 0
    window 2            f g h i

With a catalogue of interests, a window ends with the interest of the event after it (see
`adprior_build.training.interest_examples`). A user who would teach none has a window more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from functools import cache
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adprior_build.data.event_log import UserHistory
from adprior_build.training.interest_examples import InterestExample, InterestExamples
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.budget import room_for_events
from adprior_runtime.prompt.context import Event
from adprior_runtime.prompt.renderer import PromptRenderer, Section
from adprior_runtime.terminal.progress import track

_REPEATED_SHARE: Final = 0.2
"""At most this share of a window's room repeats events of the window before.

With windows of 256 tokens it leaves 3.5 % of the targets with less than 64 tokens before them;
without repeats 19 % have less. A share of 0.5 leaves 3.1 %, for half as many tokens again.
"""
_NAME: Final = "{advertiser}{end}"

SEEN: Final = 0
"""The kind of a target token whose name its user had before."""
NEW: Final = 1
"""The kind of a target token whose name is new to its user."""
INTEREST: Final = 2
"""The kind of a target token of an interest's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """One sequence.

    Attributes:
        token_ids: int32 [tokens].
        targets: int32 [target tokens]: the positions of the tokens that the loss is computed on.
        kinds: int8 [target tokens]: `SEEN`, `NEW` or `INTEREST`.
        names: Number of advertisers' names among the targets.
        new_names: Number of these that are new to the user.
        interests: Number of interests among the targets.
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    kinds: NDArray[np.int8]
    names: int
    new_names: int
    interests: int = 0


EpochWindows: TypeAlias = Callable[[int], list[Window]]
"""Returns the windows of an epoch; always the same ones for the same number."""


class WindowSource:
    """Cuts users' histories into windows, each epoch with the events of a day in another order.

    The loss is computed on each name of the catalogue with its terminator. Other names are only
    shown.

    Args:
        users: The users' histories.
        renderer: Renders the prompts.
        trie: The catalogue's names.
        seed: Seed of all draws.
        interests: Makes the interest at the end of a window; None for windows without.

    Raises:
        InvalidInputError: The template never shows a name with its terminator.
    """

    def __init__(
        self,
        users: Sequence[UserHistory],
        renderer: PromptRenderer,
        trie: Trie,
        seed: int,
        interests: InterestExamples | None = None,
    ) -> None:
        if not any(_NAME in piece for piece in renderer.template.event):
            raise InvalidInputError(
                f"prompt template: no event piece has {_NAME}, so there is nothing to train on"
            )
        self._users = users
        self._renderer = renderer
        self._seed = seed
        self._interests = interests
        self._names_an_advertiser = cache(lambda token_ids: trie.lookup(token_ids) >= 0)

    def epoch(self, number: int) -> list[Window]:
        """Return the windows of an epoch; always the same for the same seed and number."""
        random = np.random.default_rng([self._seed, number])
        windows: list[Window] = []
        for user in track(self._users, desc=f"windows of epoch {number}", unit="user", leave=False):
            windows += self._cut(user, random)
        return [windows[index] for index in random.permutation(len(windows))]

    def _cut(self, user: UserHistory, random: np.random.Generator) -> list[Window]:
        events = _shuffle_within_days(user.events, random)
        sections = self._renderer.event_sections(events)
        examples: Sequence[InterestExample | None] = [None] * (len(sections) + 1)
        if self._interests is not None:
            examples = self._interests.between(events, sections)
        start = self._renderer.start_ids(user.profile)
        budget = self._renderer.template.max_prompt_tokens
        room = room_for_events(budget, start=len(start), tail=0)
        room -= self._renderer.room_for_earlier(room)
        news = self._find_news(sections)
        windows, first = [], 0
        while first < len(sections):
            builder = self._begin(start, events, sections[:first], _REPEATED_SHARE * room)
            before = first
            while first < len(sections):
                ends_well = first > before and examples[first] is not None
                needs_room = examples[first + 1] if ends_well else None
                if not builder.add(sections[first], news[first], needs_room):
                    break
                first += 1
            example = examples[first]
            if first == before:  # an event that no prompt has room for
                first += 1
            windows.append(builder.window(example))
        windows = [window for window in windows if window.names]
        if any(examples) and not any(window.interests for window in windows):
            windows += self._interest_alone(start, events, sections, examples, random)
        return windows

    def _begin(
        self,
        start: Sequence[int],
        events: Sequence[Event],
        sections: Sequence[Section],
        room: float,
    ) -> _WindowBuilder:
        """Return a window that shows the last sections within ``room``, as a prompt would.

        Args:
            start: Head and profile.
            events: A history.
            sections: Of its events up to the window.
            room: Most tokens of the sections.
        """
        budget = self._renderer.template.max_prompt_tokens
        shown = _last_within(sections, room)
        dropped = len(sections) - len(shown)
        kept = self._renderer.room_for_earlier(budget - len(start)) if dropped else 0
        earlier = self._renderer.earlier_ids(events[:dropped], kept)
        builder = _WindowBuilder([*start, *earlier], budget - (kept - len(earlier)))
        for section in shown:
            builder.add(section, None)
        return builder

    def _interest_alone(
        self,
        start: Sequence[int],
        events: Sequence[Event],
        sections: Sequence[Section],
        examples: Sequence[InterestExample | None],
        random: np.random.Generator,
    ) -> list[Window]:
        """Return a window whose only target is an interest, after a random part of the history.

        It is for users whose windows all end without one: most have a short history.
        """
        known = [(place, example) for place, example in enumerate(examples) if example]
        place, example = known[random.integers(len(known))]
        budget = self._renderer.template.max_prompt_tokens
        room = budget - len(start) - len(example.tail_ids)
        if len(_last_within(sections[:place], room)) < place:
            room -= self._renderer.room_for_earlier(budget - len(start))
        builder = self._begin(start, events, sections[:place], room)
        window = builder.window(example)
        return [window] if window.interests else []

    def _find_news(self, sections: Sequence[Section]) -> list[bool | None]:
        """Tell, for each event, whether its name is new to the user; None if it is no target."""
        seen: set[tuple[int, ...]] = set()
        news: list[bool | None] = []
        for section in sections:
            start, stop = section.span or (0, 0)
            name = tuple(section.token_ids[start:stop])
            known = bool(name) and self._names_an_advertiser(name)
            news.append(name not in seen if known else None)
            seen.add(name)
        return news


class _WindowBuilder:
    """Appends events to a window, as long as a prompt would have room for them."""

    def __init__(self, start: Sequence[int], budget: int) -> None:
        self._ids = list(start)
        self._budget = budget
        self._targets: list[int] = []
        self._kinds: list[int] = []
        self._names: list[bool] = []

    def add(
        self, section: Section, is_new: bool | None, needs_room: InterestExample | None = None
    ) -> bool:
        """Append an event whose name begins within the budget; tell whether it was appended.

        Args:
            section: The event.
            is_new: Whether its name is new to the user; None if the name is no target.
            needs_room: An interest whose prompt must fit after the event.
        """
        place, span = len(self._ids), section.span
        if needs_room and self.room_before(needs_room) < len(section.token_ids):
            return False
        if is_new is None or span is None:
            if place + len(section.token_ids) > self._budget:
                return False
        elif place + span[0] > self._budget:
            return False
        elif place + span[0] > 0:  # no model predicts the first token
            self._targets += range(place + span[0], place + span[1])
            self._kinds += [NEW if is_new else SEEN] * (span[1] - span[0])
            self._names.append(is_new)
        self._ids += section.token_ids
        return True

    def window(self, example: InterestExample | None = None) -> Window:
        """Return the window, without the tokens after its last target, which nothing depends on.

        Args:
            example: The interest after the window's events, left out if its prompt does not fit.
        """
        ids, targets, kinds = self._ids, self._targets, self._kinds
        if example and self.room_before(example) >= 0:
            ids = [*ids, *example.tail_ids, *example.interest_tail_ids, *example.name_ids]
            places = range(len(ids) - len(example.name_ids), len(ids))
            targets, kinds = [*targets, *places], [*kinds, *(INTEREST for _ in places)]
        end = targets[-1] + 1 if targets else 0
        return Window(
            token_ids=np.array(ids[:end], dtype=np.int32),
            targets=np.array(targets, dtype=np.int32),
            kinds=np.array(kinds, dtype=np.int8),
            names=len(self._names),
            new_names=sum(self._names),
            interests=int(INTEREST in kinds),
        )

    def room_before(self, example: InterestExample) -> int:
        """Return how many tokens more the prompt before an interest may have; negative if none."""
        return self._budget - len(self._ids) - len(example.tail_ids)


def _last_within(sections: Sequence[Section], tokens: float) -> Sequence[Section]:
    """Return the last sections that have at most this many tokens together."""
    first = len(sections)
    while first and (tokens := tokens - len(sections[first - 1].token_ids)) >= 0:
        first -= 1
    return sections[first:]


def _shuffle_within_days(events: Sequence[Event], random: np.random.Generator) -> list[Event]:
    """Shuffle each day's events, whose order in a log means nothing that a model should learn.

    Each event keeps its day, which is all that a prompt shows of its time.
    """
    shuffled: list[Event] = []
    for day, group in groupby(events, key=lambda event: event.time.date()):
        of_day = list(group)
        first = datetime.combine(day, time(), tzinfo=UTC)
        shuffled.extend(replace(of_day[i], time=first) for i in random.permutation(len(of_day)))
    return shuffled
