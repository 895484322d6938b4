"""The prefixes of names that have a score in one search."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.compiled import Float32Array, Float64Array, Int8Array, Int64Array
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.search.expansion import begin_table, take_in
from adprior_runtime.search.outcome import log_mass, names_found
from adprior_runtime.search.passes import LEAST_LOG_PROB, for_compiled, require_numbers

_ROOM: Final = 1024
"""Prefixes below the root's children that the arrays have room for at first."""


class Prefixes:
    """A table that grows.

    It begins with the most probable children of the root. The others are not in the table as long
    as the search does not need them. They are open or excluded, and none is more probable than a
    child in the table.

    Attributes:
        nodes: int64 [scored], trie nodes.
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored], what each is, see `adprior_runtime.search.expansion`.
        parents: int64 [scored], the engine's number of the node that each continues.
        names: How many names are found.
        newest: Where the prefixes that the latest expansion left open begin; the table's end if
            there are none. A beam sets it to 0 to begin among all.
    """

    def __init__(self, trie: Trie, dead: Int64Array, ranked: RankedTokens) -> None:
        """Begin with children of the root.

        Args:
            trie: The catalogue's names.
            dead: Nodes whose names all belong to excluded advertisers, rising.
            ranked: What the engine tells of the tokens of all of the root's children.

        Raises:
            ModelOutputError: It tells of fewer or more, or of NaN or +inf.
        """
        if ranked.asked != len(trie.first_nodes):
            raise ModelOutputError(
                f"the language model's log-probabilities after the prompt: found {ranked.asked}, "
                f"expected {len(trie.first_nodes)}"
            )
        self._trie, self._dead = trie, dead
        self.names = self.newest = 0
        self._others: RankedTokens | None = None
        # How many open prefixes are more probable than any of the others, at least.
        self._certain = math.inf
        if len(ranked.places) == ranked.asked or trie.has_names_of_one_token:
            self._begin(np.arange(ranked.asked), ranked.read_all())
        else:
            self._certain = self._begin(ranked.places, ranked.log_probs)
            self._others = ranked

    def reach(self, count: int) -> None:
        """Make sure that the table has the ``count`` most probable open prefixes."""
        if count > self._certain:
            self.take_in_others()

    def take_in_others(self) -> None:
        """Put all of the root's children into the table, in their order. Positions change."""
        if self._others is None:
            return
        places, held = self._others.places, len(self._others.places)
        kinds = self.kinds[:held]
        below = self.nodes[held:], self.scores[held:], self.kinds[held:], self.parents[held:]
        count, names = self._others.asked, self.names
        self._begin(np.arange(count), self._others.read_all(), len(below[0]))
        self.kinds[places], self.names = kinds, names
        self.nodes[count:], self.scores[count:], self.kinds[count:], self.parents[count:] = below
        if self.newest:
            self.newest += count - held
        self._others, self._certain = None, math.inf

    def add(
        self,
        chosen: Int64Array,
        children: Int64Array,
        rows: Int64Array,
        kinds: Int64Array,
        log_probs: Float32Array,
        first: int,
    ) -> None:
        """Add the children that a pass has scored.

        Args:
            chosen: int64 [chosen], positions of the prefixes that were chosen for the pass.
            children: int64 [c], trie nodes.
            rows: int64 [c], rising: the place of each child's parent in the pass.
            kinds: int64 [c], see `adprior_runtime.search.expansion.plan`.
            log_probs: float32 [c], each child's log-probability after its parent.
            first: The engine's number of the first node of the pass.

        Raises:
            ModelOutputError: A log-probability is NaN or +inf.
        """
        count, new = len(self.nodes), len(log_probs)
        self._make_room(count + new)
        wrong, names, opened, firsts = take_in(
            self._nodes,
            self._scores,
            self._kinds,
            self._parents,
            count,
            chosen,
            children,
            rows,
            kinds,
            log_probs,
            LEAST_LOG_PROB,
            first,
        )
        require_numbers(wrong, new)
        self._show(count + new)
        self.names += names
        self.newest = count if opened else count + new
        self._certain -= firsts

    @property
    def columns(self) -> tuple[Int64Array, Float64Array, Int8Array]:
        """Nodes, scores and kinds: what the functions of `ranking` read."""
        return self.nodes, self.scores, self.kinds

    def found(self) -> tuple[Int64Array, Float64Array]:
        """Return the leaves of the names found, none excluded, and their log-probabilities.

        The most probable name comes first; of equal ones, the one that was found first.
        """
        places = names_found(self.scores, self.kinds, self.names)
        return self.nodes[places], self.scores[places]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of open prefixes and excluded names."""
        others = -math.inf if self._others is None else self._others.others_log_mass
        return log_mass(self.scores, self.kinds, others)

    def _begin(self, places: Int64Array, log_probs: Float32Array, below: int = 0) -> int:
        """Make arrays that begin with children of the root.

        Args:
            places: int64 [n], where the children are among all of the root's.
            log_probs: float32 [n], theirs.
            below: How many prefixes will be written behind them at once.

        Returns:
            How many of the children are certainly more probable than any that is left out.
        """
        count = len(places)
        room = count + below + _ROOM
        self._nodes, self._parents = np.empty(room, np.int64), np.empty(room, np.int64)
        self._scores, self._kinds = np.empty(room, np.float64), np.empty(room, np.int8)
        wrong, self.names, certain = begin_table(
            self._nodes,
            self._scores,
            self._kinds,
            self._parents,
            self._trie.offsets,
            self._dead,
            places,
            for_compiled(log_probs, count),
            LEAST_LOG_PROB,
        )
        require_numbers(wrong, count)
        self._show(count + below)
        return certain

    def _make_room(self, count: int) -> None:
        """Move to larger arrays if ``count`` prefixes need them."""
        if count > len(self._nodes):
            self._nodes, self._scores, self._kinds, self._parents = (
                np.concatenate([column, np.empty(count, dtype=column.dtype)])
                for column in (self._nodes, self._scores, self._kinds, self._parents)
            )

    def _show(self, count: int) -> None:
        self.nodes, self.parents = self._nodes[:count], self._parents[:count]
        self.scores, self.kinds = self._scores[:count], self._kinds[:count]
