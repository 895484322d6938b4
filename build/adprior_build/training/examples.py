"""Training examples: prompts as serving renders them, each with the advertiser that came next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from functools import cache
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np

from adprior_build.data.event_log import UserHistory
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.terminal.progress import track

_NAMES_PER_PROMPT: Final = 50
"""The approximate number of advertisers in a prompt; users with more get more examples."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence.

    Attributes:
        token_ids: The prompt, then the target's name and terminator.
        target_positions: Positions of the tokens that the loss is computed on.
    """

    token_ids: list[int]
    target_positions: list[int]


EpochExamples: TypeAlias = Callable[[int], list[Example]]
"""Returns the examples of an epoch; always the same ones for the same number."""


class ExampleSource:
    """Draws examples from users' histories.

    An example is a day on which the user acted on an advertiser of the catalogue, with the history
    of strictly earlier days. The loss is computed on the target's name with its terminator, and on
    the names in the history, each predicted from what comes before it.

    In a share of the examples, ``name_swaps``, each name of the catalogue is replaced by another of
    similar popularity, always the same one within the example. So the model can predict only from
    popularity and the history itself, and cannot memorise histories.

    Args:
        users: The users' histories.
        renderer: Renders the prompts.
        trie: The catalogue's names.
        seed: Seed of all draws.
        names: The catalogue's names, the most popular first, for swapping.
        name_swaps: The share, 0 to 1.
        first_of_day: Compute the loss only on the first advertiser that the prompt shows of each
            day. A day's events are shuffled, so this is a random advertiser of the day, predicted
            from earlier days only, as at serving time.
    """

    def __init__(
        self,
        users: Sequence[UserHistory],
        renderer: PromptRenderer,
        trie: Trie,
        seed: int,
        *,
        names: Sequence[str] = (),
        name_swaps: float = 0.0,
        first_of_day: bool = False,
    ) -> None:
        self._renderer = renderer
        self._trie = trie
        self._seed = seed
        self._names = names
        self._name_swaps = name_swaps
        self._first_of_day = first_of_day
        self._ranks = {self._key(name): rank for rank, name in enumerate(names)}
        self._is_known = cache(self._names_an_advertiser)
        rows = ((user, self._target_rows(user)) for user in users)
        self._users = [(user, targets) for user, targets in rows if targets]

    def epoch(self, number: int) -> list[Example]:
        """Return the examples of an epoch; always the same for the same seed and number."""
        random = np.random.default_rng([self._seed, number])
        examples: list[Example] = []
        for user, rows in track(
            self._users, desc=f"examples of epoch {number}", unit="user", leave=False
        ):
            count = max(1, round(len(rows) / _NAMES_PER_PROMPT))
            drawn = random.choice(rows, size=count, replace=False)
            examples.extend(self._example(user, int(row), random) for row in drawn)
        examples = [example for example in examples if example.target_positions]
        return [examples[index] for index in random.permutation(len(examples))]

    def _target_rows(self, user: UserHistory) -> list[int]:
        """Return the rows of the events that name an advertiser of the catalogue."""
        return [
            row
            for row, event in enumerate(user.events)
            if event.advertiser and self._is_known(self._key(event.advertiser))
        ]

    def _key(self, name: str) -> tuple[int, ...]:
        """Return a name's tokens: names with the same tokens are the same to the model."""
        return tuple(self._renderer.name_ids(name))

    def _names_an_advertiser(self, token_ids: tuple[int, ...]) -> bool:
        return self._trie.lookup(token_ids) >= 0

    def _swap_names(self, user: UserHistory, random: np.random.Generator) -> UserHistory:
        ranks = np.arange(len(self._names))
        others = np.argsort(np.log1p(ranks) + random.random(len(ranks)))
        return replace(
            user,
            events=tuple(
                event
                if (rank := self._ranks.get(self._key(event.advertiser or ""))) is None
                else replace(event, advertiser=self._names[others[rank]])
                for event in user.events
            ),
        )

    def _example(self, user: UserHistory, row: int, random: np.random.Generator) -> Example:
        if random.random() < self._name_swaps:
            user = self._swap_names(user, random)
        target = user.events[row]
        day = datetime.combine(target.time.date(), time(), tzinfo=UTC)
        history = [event for event in user.events[:row] if event.time < day]
        history = _shuffle_within_days(history, random)
        prompt = self._renderer.render(
            UserContext(profile=user.profile, history=history, as_of=day)
        )
        spans = prompt.advertiser_spans
        if self._first_of_day:
            firsts = _firsts_of_days(history[row] for row in prompt.advertiser_rows)
            spans = [span for span, first in zip(spans, firsts, strict=True) if first]
        name = self._renderer.name_ids(target.advertiser or "")
        start = len(prompt.token_ids)
        token_ids = prompt.token_ids + name
        positions = [
            position
            for first, last in [*spans, (start, start + len(name))]
            if first > 0 and self._is_known(tuple(token_ids[first:last]))
            for position in range(first, last)
        ]
        return Example(token_ids, positions)


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


def _firsts_of_days(events: Iterable[Event]) -> Iterator[bool]:
    """Tell, for each event, whether it is the first of its day."""
    previous = None
    for event in events:
        yield event.time.date() != previous
        previous = event.time.date()
