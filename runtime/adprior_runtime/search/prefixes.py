"""The prefixes of names that have a score in one search."""

from __future__ import annotations

from typing import Final

import numpy as np

from adprior_runtime.compiled import Float64Array, Int8Array, Int64Array
from adprior_runtime.engines.base import ROOT
from adprior_runtime.search.expansion import EXCLUDED, FOUND, OPEN, take_in

_ROOM: Final = 1024
"""Prefixes below the root's children that the arrays have room for at first."""


class Prefixes:
    """A table that grows; a prefix keeps its position.

    Attributes:
        nodes: int64 [scored], trie nodes.
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored], what each is, see `adprior_runtime.search.expansion`.
        parents: int64 [scored], the engine's number of the node that each continues.
        names: How many names are found.
    """

    def __init__(self, nodes: Int64Array, scores: Float64Array, kinds: Int8Array) -> None:
        """Begin with the root's children.

        Args:
            nodes: int64 [n], trie nodes.
            scores: float64 [n].
            kinds: int8 [n].
        """
        self.names = int(np.count_nonzero(kinds == FOUND))
        room = len(nodes) + _ROOM
        self._nodes, self._parents = np.empty(room, np.int64), np.empty(room, np.int64)
        self._scores, self._kinds = np.empty(room, np.float64), np.empty(room, np.int8)
        self._show(len(nodes))
        self.nodes[:], self.scores[:], self.kinds[:], self.parents[:] = nodes, scores, kinds, ROOT

    def add(
        self,
        chosen: Int64Array,
        children: Int64Array,
        rows: Int64Array,
        kinds: Int64Array,
        log_probs: Float64Array,
        first: int,
    ) -> None:
        """Add the children that a pass has scored.

        Args:
            chosen: int64 [chosen], positions of the prefixes that were chosen for the pass.
            children: int64 [c], trie nodes.
            rows: int64 [c], rising: the place of each child's parent in the pass.
            kinds: int64 [c], see `adprior_runtime.search.expansion.plan`.
            log_probs: float64 [c], each child's log-probability after its parent.
            first: The engine's number of the first node of the pass.
        """
        count = len(self.nodes)
        self._make_room(count + len(log_probs))
        self.names += take_in(
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
            first,
        )
        self._show(count + len(log_probs))

    @property
    def columns(self) -> tuple[Int64Array, Float64Array, Int8Array]:
        """Nodes, scores and kinds: what the functions of `ranking` read."""
        return self.nodes, self.scores, self.kinds

    def found(self) -> tuple[Int64Array, Float64Array]:
        """Return the leaves of the names found, none excluded, and their log-probabilities."""
        places = (self.kinds == FOUND).nonzero()[0]
        return self.nodes[places], self.scores[places]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of open prefixes and excluded names."""
        outside = self.scores[(self.kinds == OPEN) | (self.kinds == EXCLUDED)]
        highest = outside.max(initial=-np.inf)
        if highest == -np.inf:
            return -np.inf
        return float(highest + np.log(np.exp(outside - highest).sum()))

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
