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


class SearchTree:
    """Grows by `expand`; everything else only looks.

    Attributes:
        excluded_rows: int64, rising, advertisers that must not come out.
        open_nodes, open_scores: int64 and float64 [open], trie nodes and their log-probabilities.
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
        self._meet_children(root, root + ROOT, np.zeros(1), root, log_probs[None])

    @property
    def extended_tokens(self) -> int:
        """Tokens that have gone through the model after the prompt."""
        return len(self.expanded_nodes)

    def open_at(self, depth: int) -> Int64Array:
        """Return the open prefixes of ``depth`` tokens, as positions in `open_nodes`."""
        return np.flatnonzero(self._open_depths == depth)

    def expanded_scores_at(self, depth: int) -> _Float64Array:
        """Return the log-probabilities of expanded prefixes of ``depth`` tokens."""
        scores: _Float64Array = self._expanded_scores[self._expanded_depths == depth]
        return scores

    def largest_open(self, count: int) -> _Float64Array:
        """Return the ``count`` largest log-probabilities of open prefixes, in no order."""
        if len(self.open_scores) <= count:
            return self.open_scores
        return np.partition(self.open_scores, len(self.open_scores) - count)[-count:]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of all that is neither expanded nor found."""
        outside = np.concatenate([self.open_scores, self._excluded_scores])
        return float(np.logaddexp.reduce(outside)) if len(outside) else -np.inf

    def expand(self, chosen: Int64Array, width: int) -> None:
        """Put open prefixes through the model, in one forward pass.

        The same pass takes what lies below them, depth by depth, as long as a depth holds hardly
        more than ``width`` prefixes: a beam of that width would expand them all anyway, and a
        longer pass costs less than another one.

        Args:
            chosen: Positions in `open_nodes`.
            width: Of the beam.
        """
        trie, first = self._trie, len(self.expanded_nodes)
        nodes, parents = [self.open_nodes[chosen]], [self._open_parents[chosen]]
        depths, start = [self._open_depths[chosen]], 0
        while True:
            children, of = trie.children_of(nodes[-1])
            inner = np.flatnonzero(trie.leaf_advertiser[children] < 0)
            if len(self._dead):
                inner = inner[~np.isin(children[inner], self._dead)]
            if not 0 < len(inner) <= width + width // 4:
                break
            children, of = children[inner], of[inner]
            parents.append(first + start + of)
            start += len(nodes[-1])
            depths.append(depths[-1][of] + 1)
            nodes.append(children)
        node, parent, depth = (np.concatenate(levels) for levels in (nodes, parents, depths))
        tokens = trie.child_tokens[node - 1]
        log_probs = self._engine.extend(self._state, tokens, parent)
        scores = np.zeros(len(node))
        scores[: len(chosen)] = self.open_scores[chosen]
        _fill_scores(scores, np.maximum(parent - first, -1), tokens, log_probs)
        self._close(chosen)
        self.expanded_nodes = np.concatenate([self.expanded_nodes, node])
        self._expanded_scores = np.concatenate([self._expanded_scores, scores])
        self._expanded_depths = np.concatenate([self._expanded_depths, depth])
        self._meet_children(node, first + np.arange(len(node)), scores, depth, log_probs)

    def resolved(self, leaves: Int64Array) -> tuple[npt.NDArray[np.bool_], _Float64Array]:
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
        return scores[last] + log_probs[last, self._trie.child_tokens[lineage[:, -1] - 1]], len(
            nodes
        )

    def _numbers(self, nodes: Int64Array) -> Int64Array:
        """Return the engine's numbers of expanded nodes, of the root too."""
        order = np.argsort(self.expanded_nodes)
        numbers = np.full(len(nodes), ROOT, dtype=np.int64)
        inner = nodes > 0
        numbers[inner] = order[np.searchsorted(self.expanded_nodes, nodes[inner], sorter=order)]
        return numbers

    def _met(self) -> tuple[Int64Array, _Float64Array]:
        """Return every node with a score that is not expanded, rising, and the scores."""
        nodes = np.concatenate([self.open_nodes, self.found_leaves, self._excluded_nodes])
        scores = np.concatenate([self.open_scores, self.found_scores, self._excluded_scores])
        order = np.argsort(nodes)
        return nodes[order], scores[order]

    def _meet_children(
        self,
        nodes: Int64Array,
        numbers: Int64Array,
        scores: _Float64Array,
        depths: Int64Array,
        log_probs: LogProbs,
    ) -> None:
        """Take in the children of nodes that have just gone through the model.

        Args:
            nodes: int64 [n], trie nodes.
            numbers: int64 [n], the engine's numbers of them.
            scores: float64 [n], of them.
            depths: int64 [n], of them.
            log_probs: float32 [n, vocabulary], of the token after each.
        """
        trie = self._trie
        children, of = trie.children_of(nodes)
        child_scores = scores[of] + log_probs[of, trie.child_tokens[children - 1]]
        is_found = trie.leaf_advertiser[children] >= 0
        is_open = ~is_found
        if len(self.expanded_nodes):
            is_open &= ~np.isin(children, self.expanded_nodes)  # in this very pass
        if len(self._dead):
            is_dead = np.isin(children, self._dead)
            is_open &= ~is_dead
            is_found &= ~is_dead
            self._excluded_nodes = np.concatenate([self._excluded_nodes, children[is_dead]])
            self._excluded_scores = np.concatenate([self._excluded_scores, child_scores[is_dead]])
        if is_found.any():
            self.found_leaves = np.concatenate([self.found_leaves, children[is_found]])
            self.found_scores = np.concatenate([self.found_scores, child_scores[is_found]])
        of = of[is_open]
        self.open_nodes = np.concatenate([self.open_nodes, children[is_open]])
        self.open_scores = np.concatenate([self.open_scores, child_scores[is_open]])
        self._open_parents = np.concatenate([self._open_parents, numbers[of]])
        self._open_depths = np.concatenate([self._open_depths, depths[of] + 1])

    def _close(self, chosen: Int64Array) -> None:
        stays = np.ones(len(self.open_nodes), dtype=np.bool_)
        stays[chosen] = False
        self.open_nodes, self.open_scores = self.open_nodes[stays], self.open_scores[stays]
        self._open_parents = self._open_parents[stays]
        self._open_depths = self._open_depths[stays]

    def _nodes_of_excluded_only(self) -> Int64Array:
        """Return the trie nodes below which nothing but excluded advertisers lie."""
        trie, rows = self._trie, self.excluded_rows
        if len(rows) == 0:
            return np.zeros(0, dtype=np.int64)
        return trie.covered(trie.leaves_of(rows)[0])


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
