"""Counts of which parts of a user's context a forecast uses, and which it does not."""

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
        events: Events in the request.
        after_as_of: Events after ``as_of``.
        over_budget: Oldest events dropped for the prompt's budget.
        advertisers: Different advertisers in the prompt.
        known_advertisers: Advertisers of these that are in the catalogue; None without a trie.
        profile_keys: Profile keys in the request.
        denied_keys: Profile keys that the template denies.
        unknown_keys: Other profile keys that training never saw; None if the bundle does not list
            the keys of its training.
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
        renderer: The bundle's renderer.
        trie: The catalogue's names; None if it is not available.
        trained_keys: The profile keys that training saw; None if they are unknown.
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
        """Count which parts of a context its prompt shows."""
        names = {self._name(prompt.token_ids[start:end]) for start, end in prompt.advertiser_spans}
        usable = [key for key in context.profile if not self._denies(key)]
        return ContextUse(
            events=len(context.history) + context.dropped_events,
            after_as_of=context.dropped_events,
            over_budget=prompt.dropped_events,
            advertisers=len(names),
            known_advertisers=self._count_known(names),
            profile_keys=len(context.profile),
            denied_keys=len(context.profile) - len(usable),
            unknown_keys=None
            if self._trained is None
            else sum(self._shown(key) not in self._trained for key in usable),
        )

    def _name(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Return a name with the terminator, which the template may leave out."""
        return (*token_ids,) if token_ids[-1:] == [self._end_id] else (*token_ids, self._end_id)

    def _count_known(self, names: Collection[tuple[int, ...]]) -> int | None:
        if self._trie is None:
            return None
        nodes = self._trie.find(*as_matrix(names))
        found = nodes[nodes >= 0]
        return int(np.count_nonzero(self._trie.leaf_advertiser[found] >= 0))
