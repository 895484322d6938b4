"""The prefixes of names that have a score in one search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from adprior_runtime.compiled import Float64Array, Int8Array, Int64Array
from adprior_runtime.engines.base import ROOT
from adprior_runtime.search.expansion import EXCLUDED, FOUND, OPEN, take_in

_ROOM: Final = 1024
"""Prefixes below the root's children that the arrays have room for at first."""


Columns = tuple[Int64Array, Float64Array, Int8Array]
"""Nodes, scores and kinds of prefixes, as in `Prefixes`."""


@dataclass(frozen=True, slots=True)
class Others:
    """The root's children that a table leaves out, as long as a search does not need them.

    None of them is a whole name or more probable than a child that the table begins with.

    Attributes:
        log_mass: Log of the sum of their probabilities.
        places: int64 [n], rising: where the children in the table are among all of the root's.
        read_all: Returns the columns of all of the root's children.
    """

    log_mass: float
    places: Int64Array
    read_all: Callable[[], Columns]


class Prefixes:
    """A table that grows. It begins with children of the root; it may leave out some of them.

    Attributes:
        nodes: int64 [scored], trie nodes.
        scores: float64 [scored], log-probabilities.
        kinds: int8 [scored], what each is, see `adprior_runtime.search.expansion`.
        parents: int64 [scored], the engine's number of the node that each continues.
        names: How many names are found.
        newest: The position of the first prefix of the latest expansion. A beam sets it to 0 to
            begin among all.
    """

    def __init__(self, first: Columns, others: Others | None = None) -> None:
        """Begin with children of the root.

        Args:
            first: Theirs, in their order.
            others: The other children; None if there are none.
        """
        _, scores, kinds = first
        self.names, self.newest = int(np.count_nonzero(kinds == FOUND)), 0
        self._others, self._certain = others, np.inf
        if others is not None:  # others may be as probable as the last of these
            self._certain = np.count_nonzero((kinds == OPEN) & (scores > scores.min()))
        self._begin(first)

    def reach(self, count: int) -> None:
        """Make sure that no open prefix left out is among the ``count`` most probable ones."""
        if count > self._certain:
            self.take_in_others()

    def take_in_others(self) -> None:
        """Leave out none of the root's children any more. Positions change."""
        if self._others is None:
            return
        nodes, scores, kinds = self._others.read_all()
        held = len(self._others.places)
        kinds[self._others.places] = self.kinds[:held]
        count = len(nodes)
        below = self.nodes[held:], self.scores[held:], self.kinds[held:], self.parents[held:]
        self._begin((nodes, scores, kinds), len(below[0]))
        self.nodes[count:], self.scores[count:], self.kinds[count:], self.parents[count:] = below
        if self.newest:
            self.newest += count - held
        self._others, self._certain = None, np.inf

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
        names, firsts = take_in(
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
        self.names, self.newest = self.names + names, count
        self._certain -= firsts

    @property
    def columns(self) -> Columns:
        """Nodes, scores and kinds: what the functions of `ranking` read."""
        return self.nodes, self.scores, self.kinds

    def found(self) -> tuple[Int64Array, Float64Array]:
        """Return the leaves of the names found, none excluded, and their log-probabilities."""
        places = (self.kinds == FOUND).nonzero()[0]
        return self.nodes[places], self.scores[places]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of open prefixes and excluded names."""
        outside = self.scores[(self.kinds == OPEN) | (self.kinds == EXCLUDED)]
        others = -np.inf if self._others is None else self._others.log_mass
        highest = outside.max(initial=others)
        if highest == -np.inf:
            return -np.inf
        return float(highest + np.log(np.exp(outside - highest).sum() + np.exp(others - highest)))

    def _begin(self, first: Columns, below: int = 0) -> None:
        """Make arrays that begin with children of the root, with room for prefixes below them.

        Args:
            first: The children.
            below: How many prefixes will be written behind them at once.
        """
        nodes, scores, kinds = first
        count = len(nodes)
        room = count + below + _ROOM
        self._nodes, self._parents = np.empty(room, np.int64), np.empty(room, np.int64)
        self._scores, self._kinds = np.empty(room, np.float64), np.empty(room, np.int8)
        self._show(count + below)
        self.nodes[:count], self.scores[:count], self.kinds[:count] = nodes, scores, kinds
        self.parents[:count] = ROOT

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
