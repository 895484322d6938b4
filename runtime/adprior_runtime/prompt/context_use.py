"""What of a user's context a forecast rests on, and what of it was not used: counts, no values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from adprior_runtime.catalogue.trie import Trie, as_matrix
from adprior_runtime.contract import UNCOUNTED, ContextCount
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.prompt.renderer import Prompt, PromptRenderer


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextUse:
    """The counts of one context, in the order of `contract.ContextCount`.

    Attributes:
        events: Events that came.
        after_as_of: Those of them that lie after ``as_of``.
        over_budget: The oldest ones, beyond the prompt's budget.
        advertisers: Advertisers that the prompt shows, each once.
        known_advertisers: Those of them that the catalogue has; None without a trie.
        profile_keys: Keys of the profile that came.
        denied_keys: Those of them that the template denies.
        unknown_keys: Of the others, those that training never saw; None where the bundle does not
            tell what it saw.
    """

    events: int
    after_as_of: int
    over_budget: int
    advertisers: int
    known_advertisers: int | None
    profile_keys: int
    denied_keys: int
    unknown_keys: int | None

    def counts(self) -> list[int]:
        """Return the values of the tensor ``CONTEXT_USE``."""
        values = [UNCOUNTED if count is None else count for count in astuple(self)]
        return [values[place] for place in ContextCount]


class ContextMeter:
    """Counts with one bundle's template, catalogue and training.

    Args:
        renderer: The bundle's.
        trie: The catalogue's names; None where it is not at hand.
        trained_keys: The profile keys that training saw; None where nobody knows.
    """

    def __init__(
        self, renderer: PromptRenderer, trie: Trie | None, trained_keys: Collection[str] | None
    ) -> None:
        self._denies: Callable[[str], bool] = renderer.denies
        self._end_id = renderer.end_id
        self._shown = renderer.template.shown
        self._trie = trie
        self._trained = None if trained_keys is None else frozenset(map(self._shown, trained_keys))

    def measure(self, context: UserContext, prompt: Prompt) -> ContextUse:
        """Count what a prompt shows of its context."""
        names = {self._name(prompt.token_ids[start:end]) for start, end in prompt.advertiser_spans}
        asked = [key for key in context.profile if not self._denies(key)]
        return ContextUse(
            events=len(context.history) + context.dropped_events,
            after_as_of=context.dropped_events,
            over_budget=prompt.dropped_events,
            advertisers=len(names),
            known_advertisers=self._count_known(names),
            profile_keys=len(context.profile),
            denied_keys=len(context.profile) - len(asked),
            unknown_keys=None
            if self._trained is None
            else sum(self._shown(key) not in self._trained for key in asked),
        )

    def _name(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Return a name as the trie has it, whether or not the template puts a terminator."""
        return (*token_ids,) if token_ids[-1:] == [self._end_id] else (*token_ids, self._end_id)

    def _count_known(self, names: Collection[tuple[int, ...]]) -> int | None:
        if self._trie is None:
            return None
        nodes = self._trie.find(*as_matrix(names))
        found = nodes[nodes >= 0]
        return int(np.count_nonzero(self._trie.leaf_advertiser[found] >= 0))
