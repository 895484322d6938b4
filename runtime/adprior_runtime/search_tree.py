"""What one search has met of the trie: prefixes expanded, prefixes open, complete names found.

A prefix is *expanded* when its token has gone through the model, so that its children have scores;
*open* when it has a score and has not been expanded. Open prefixes, found and excluded names are
disjoint, and nothing of the catalogue lies outside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import ROOT, Engine, LogProbs
from adprior_runtime.trie import Int64Array, Trie

__all__ = ["SearchTree"]

_Float64Array = npt.NDArray[np.float64]
_BoolArray = npt.NDArray[np.bool_]


class SearchTree:
    """Grows by `expand`; everything else only looks.

    Attributes:
        excluded_rows: int64, rising, advertisers that must not come out.
        open_nodes: int64 [met], trie nodes of the prefixes met.
        open_scores: float64 [met], their log-probabilities, -inf once expanded.
        found_leaves, found_scores: int64 and float64 [found], of names that are not excluded.
        expanded_nodes: int64 [expanded]; the position is the engine's number of the node.
    """

    def __init__(
        self,
        engine: Engine[Any],
        trie: Trie,
        prompt_ids: Sequence[int],
        excluded_rows: Int64Array,
    ) -> None:
        """Read the prompt and expand the root."""
        self._engine = engine
        self._trie = trie
        self.excluded_rows = excluded_rows
        self._dead = self._nodes_of_excluded_only()
        self.open_nodes = self.found_leaves = self.expanded_nodes = np.zeros(0, dtype=np.int64)
        self._excluded_nodes = self._open_parents = self.open_nodes
        self._open_depths = self._expanded_depths = self.open_nodes
        self.open_scores = self.found_scores = self._excluded_scores = np.zeros(0)
        self._expanded_scores = self.open_scores
        self._state, log_probs = engine.prefill(prompt_ids)
        root = np.zeros(1, dtype=np.int64)
        children, of = trie.children_of(root)
        scores = log_probs[trie.child_tokens[children - 1]].astype(np.float64)
        self._meet(children, scores, np.full(len(of), ROOT), np.ones(len(of), dtype=np.int64))

    @property
    def extended_tokens(self) -> int:
        """Tokens that have gone through the model after the prompt."""
        return len(self.expanded_nodes)

    def open_at(self, depth: int) -> Int64Array:
        """Return the open prefixes of ``depth`` tokens, as positions in `open_nodes`."""
        return np.flatnonzero((self._open_depths == depth) & (self.open_scores > -np.inf))

    def expanded_scores_at(self, depth: int) -> _Float64Array:
        """Return the log-probabilities of expanded prefixes of ``depth`` tokens."""
        scores: _Float64Array = self._expanded_scores[self._expanded_depths == depth]
        return scores

    def largest_open(self, count: int) -> _Float64Array:
        """Return the ``count`` largest log-probabilities of open prefixes, in no order."""
        scores = self.open_scores
        if len(scores) > count:
            scores = np.partition(scores, len(scores) - count)[-count:]
        return scores[scores > -np.inf]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of all that is neither expanded nor found."""
        outside = np.concatenate([self.open_scores, self._excluded_scores])
        highest = outside.max(initial=-np.inf)
        if highest == -np.inf:
            return -np.inf
        return float(highest + np.log(np.exp(outside - highest).sum()))

    def expand(self, chosen: Int64Array, width: int) -> None:
        """Put open prefixes through the model, in one forward pass.

        The same pass takes what lies below them, depth by depth, as long as a depth holds hardly
        more than ``width`` prefixes: a beam of that width would expand them all anyway, and a
        longer pass costs less than another one.

        Args:
            chosen: Positions in `open_nodes`.
            width: Of the beam; 0 takes nothing below.
        """
        trie, first = self._trie, len(self.expanded_nodes)
        levels = [_Level(self.open_nodes[chosen], self._open_parents[chosen], trie)]
        starts = [0]
        while True:
            last = levels[-1]
            inner = last.inner_children(self._dead)
            if not 0 < len(inner) <= width + width // 4:
                break
            last.goes_on[inner] = True
            parents = first + starts[-1] + last.of[inner]
            starts.append(starts[-1] + len(last.nodes))
            levels.append(_Level(last.children[inner], parents, trie))
        nodes = np.concatenate([level.nodes for level in levels])
        parents = np.concatenate([level.parents for level in levels])
        tokens = trie.child_tokens[nodes - 1]
        log_probs = self._engine.extend(self._state, tokens, parents)
        scores, depths = np.empty(len(nodes)), np.empty(len(nodes), dtype=np.int64)
        scores[: len(chosen)] = self.open_scores[chosen]
        depths[: len(chosen)] = self._open_depths[chosen]
        for start, level in zip(starts[1:], levels[1:], strict=True):
            here, above = slice(start, start + len(level.nodes)), level.parents - first
            scores[here] = scores[above] + log_probs[above, tokens[here]]
            depths[here] = depths[above] + 1
        self.open_scores[chosen] = -np.inf
        self.expanded_nodes = np.concatenate([self.expanded_nodes, nodes])
        self._expanded_scores = np.concatenate([self._expanded_scores, scores])
        self._expanded_depths = np.concatenate([self._expanded_depths, depths])
        stays = np.concatenate([~level.goes_on for level in levels])
        children = np.concatenate([level.children for level in levels])[stays]
        of = np.concatenate([s + level.of for s, level in zip(starts, levels, strict=True)])[stays]
        child_scores = scores[of] + log_probs[of, trie.child_tokens[children - 1]]
        self._meet(children, child_scores, first + of, depths[of] + 1)

    def resolved(self, leaves: Int64Array) -> tuple[_BoolArray, _Float64Array]:
        """Return which leaves have been met, and the probability of those (0 of the others)."""
        nodes, scores = self._met()
        places = np.minimum(np.searchsorted(nodes, leaves), len(nodes) - 1)
        is_met = nodes[places] == leaves
        return is_met, np.where(is_met, np.exp(scores[places]), 0.0)

    def fronts(self, lineage: Int64Array) -> tuple[Int64Array, _Float64Array]:
        """Return where each path leaves what has been expanded, and that node's probability.

        Args:
            lineage: int64 [n, deepest], the nodes down to each leaf, as `Trie.ancestors` gives.

        Returns:
            int64 [n] and float64 [n]: the open prefix that a path goes through, or its leaf.
        """
        expanded = (lineage == 0) | np.isin(lineage, self.expanded_nodes)
        fronts = lineage[np.arange(len(lineage)), (~expanded).argmax(axis=1)]
        nodes, scores = self._met()
        return fronts, np.exp(scores[np.searchsorted(nodes, fronts)])

    def score_paths(self, lineage: Int64Array, fronts: Int64Array) -> tuple[_Float64Array, int]:
        """Return the log-probabilities of whole names, in one pass of which nothing is kept.

        Args:
            lineage: int64 [n, deepest], the nodes down to each leaf, as `Trie.ancestors` gives.
            fronts: int64 [n], as `fronts` gives; none is a leaf.

        Returns:
            float64 [n], and how many tokens went through the model.
        """
        inner = lineage[:, :-1]
        nodes = np.unique(inner[inner >= fronts[:, None]])
        above = self._trie.parents(nodes)
        within = np.searchsorted(nodes, above)
        within[nodes[np.minimum(within, len(nodes) - 1)] != above] = -1
        is_front = within < 0
        parents = np.where(is_front, 0, len(self.expanded_nodes) + within)
        parents[is_front] = self._numbers(above[is_front])
        tokens = self._trie.child_tokens[nodes - 1]
        log_probs = self._engine.extend(self._state, tokens, parents, keep=False)
        met_nodes, met_scores = self._met()
        scores = np.zeros(len(nodes))
        scores[is_front] = met_scores[np.searchsorted(met_nodes, nodes[is_front])]
        _fill_scores(scores, within, tokens, log_probs)
        last = np.searchsorted(nodes, lineage[:, -2])
        leaf_tokens = self._trie.child_tokens[lineage[:, -1] - 1]
        return scores[last] + log_probs[last, leaf_tokens], len(nodes)

    def _numbers(self, nodes: Int64Array) -> Int64Array:
        """Return the engine's numbers of expanded nodes, of the root too."""
        order = np.argsort(self.expanded_nodes)
        numbers = np.full(len(nodes), ROOT, dtype=np.int64)
        inner = nodes > 0
        numbers[inner] = order[np.searchsorted(self.expanded_nodes, nodes[inner], sorter=order)]
        return numbers

    def _met(self) -> tuple[Int64Array, _Float64Array]:
        """Return every node with a score that is not expanded, rising, and the scores."""
        still = self.open_scores > -np.inf
        nodes = np.concatenate([self.open_nodes[still], self.found_leaves, self._excluded_nodes])
        scores = np.concatenate([self.open_scores[still], self.found_scores, self._excluded_scores])
        order = np.argsort(nodes)
        return nodes[order], scores[order]

    def _meet(
        self, nodes: Int64Array, scores: _Float64Array, parents: Int64Array, depths: Int64Array
    ) -> None:
        """Take in nodes that have just got a score: prefixes and whole names.

        Args:
            nodes: int64 [n], trie nodes.
            scores: float64 [n], their log-probabilities.
            parents: int64 [n], the engine's numbers of their parents.
            depths: int64 [n], tokens that lead to each.
        """
        is_found = self._trie.leaf_advertiser[nodes] >= 0
        is_open = ~is_found
        if len(self._dead):
            is_dead = np.isin(nodes, self._dead)
            is_open &= ~is_dead
            is_found &= ~is_dead
            self._excluded_nodes = np.concatenate([self._excluded_nodes, nodes[is_dead]])
            self._excluded_scores = np.concatenate([self._excluded_scores, scores[is_dead]])
        if is_found.any():
            self.found_leaves = np.concatenate([self.found_leaves, nodes[is_found]])
            self.found_scores = np.concatenate([self.found_scores, scores[is_found]])
        if is_open.any():
            self.open_nodes = np.concatenate([self.open_nodes, nodes[is_open]])
            self.open_scores = np.concatenate([self.open_scores, scores[is_open]])
            self._open_parents = np.concatenate([self._open_parents, parents[is_open]])
            self._open_depths = np.concatenate([self._open_depths, depths[is_open]])

    def _nodes_of_excluded_only(self) -> Int64Array:
        """Return the trie nodes below which nothing but excluded advertisers lie."""
        if len(self.excluded_rows) == 0:
            return np.zeros(0, dtype=np.int64)
        return self._trie.covered(self._trie.leaves_of(self.excluded_rows)[0])


class _Level:
    """The prefixes of one depth of a pass, and what the trie has below them.

    Attributes:
        nodes, parents: int64 [n], trie nodes and the engine's numbers of their parents.
        children, of: int64 [c], the children and the position of each one's parent in ``nodes``.
        goes_on: bool [c], whether a child is in the same pass.
    """

    def __init__(self, nodes: Int64Array, parents: Int64Array, trie: Trie) -> None:
        self.nodes, self.parents = nodes, parents
        self.children, self.of = trie.children_of(nodes)
        self.goes_on = np.zeros(len(self.children), dtype=np.bool_)
        self._trie = trie

    def inner_children(self, dead: Int64Array) -> Int64Array:
        """Return the positions of children that may be expanded: no leaves, nothing dead."""
        is_inner = self._trie.leaf_advertiser[self.children] < 0
        if len(dead):
            is_inner &= ~np.isin(self.children, dead)
        return np.flatnonzero(is_inner)


def _fill_scores(
    scores: _Float64Array, parents: Int64Array, tokens: npt.NDArray[np.int32], log_probs: LogProbs
) -> None:
    """Complete the scores of a pass, parents before children.

    Args:
        scores: float64 [n], right where the parent is not in the pass; filled in place elsewhere.
        parents: int64 [n], the position of each node's parent in the pass, -1 outside.
        tokens: int32 [n].
        log_probs: float32 [n, vocabulary].
    """
    done = parents < 0
    waiting = np.flatnonzero(~done)
    while len(waiting):
        ready = done[parents[waiting]]
        now = waiting[ready]
        scores[now] = scores[parents[now]] + log_probs[parents[now], tokens[now]]
        done[now] = True
        waiting = waiting[~ready]
