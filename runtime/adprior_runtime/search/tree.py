"""The part of the trie that one search has reached: expanded and open prefixes, found names.

A prefix is *expanded* if its token has gone through the model, so that its children have scores. It
is *open* if it has a score and is not expanded. Open prefixes, found names and excluded names are
disjoint, and together they cover the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int64Array, Trie
from adprior_runtime.engines.base import ROOT, Engine, LogProbs
from adprior_runtime.search.passes import ForwardPasses, checked_log_probs

_Float64Array = npt.NDArray[np.float64]
_BoolArray = npt.NDArray[np.bool_]
Prefilled = tuple[Any, LogProbs]
"""From `read_prompt`: an engine's state, and the log-probabilities of names' first tokens."""


def read_prompt(engine: Engine[Any], trie: Trie, prompt_ids: Sequence[int]) -> Prefilled:
    """Put a prompt through the model, and ask for the tokens that begin a name of the trie.

    Args:
        engine: The language model.
        trie: The catalogue's names.
        prompt_ids: The prompt's tokens.

    Raises:
        InvalidRequestError: As `Engine.prefill`.
    """
    return engine.prefill(prompt_ids, trie.child_tokens[: len(trie.first_nodes)])


class SearchTree:
    """Grows by `expand` only.

    Attributes:
        excluded_rows: int64, rising, the request's exclusions.
        open_nodes: int64 [scored], trie nodes of the prefixes with a score.
        open_scores: float64 [scored], their log-probabilities, -inf once expanded.
        found_leaves, found_scores: int64 and float64 [found], names that are not excluded.
        expanded_nodes: int64 [expanded]; a position is the engine's number of the node.
    """

    def __init__(
        self,
        engine: Engine[Any],
        trie: Trie,
        prefilled: Prefilled,
        excluded_rows: Int64Array,
        before_pass: Callable[[], None] = lambda: None,
    ) -> None:
        """Expand the root.

        Args:
            engine: The language model.
            trie: The catalogue's names.
            prefilled: From `read_prompt`, with the same engine and trie.
            excluded_rows: Advertisers to leave out, rising.
            before_pass: Called before each forward pass; an exception ends the search.
        """
        self._trie = trie
        state, log_probs = prefilled
        self._passes = ForwardPasses(engine, state, before_pass)
        self.excluded_rows = excluded_rows
        self._dead = self._nodes_of_excluded_only()
        self.expanded_nodes = np.zeros(0, dtype=np.int64)
        nodes, scores = trie.first_nodes, checked_log_probs(log_probs)
        leaves, excluded, inner = _kinds(nodes, trie.first_leaves, self._dead)
        self.found_leaves, self.found_scores = nodes[leaves], scores[leaves]
        self._excluded_nodes, self._excluded_scores = nodes[excluded], scores[excluded]
        if len(inner) < len(nodes):
            nodes, scores = nodes[inner], scores[inner]
        self.open_nodes, self.open_scores = nodes, scores
        self._open_parents = np.full(len(self.open_nodes), ROOT)

    @property
    def extended_tokens(self) -> int:
        """Tokens that have gone through the model after the prompt."""
        return len(self.expanded_nodes)

    @property
    def pass_tokens(self) -> int:
        """Most tokens of one call of `score_paths`."""
        return self._passes.most_tokens

    def largest_open(self, count: int) -> _Float64Array:
        """Return the ``count`` largest log-probabilities of open prefixes, in no order."""
        scores = self.open_scores
        if len(scores) > count:
            scores = np.partition(scores, len(scores) - count)[-count:]
        return scores[scores > -np.inf]

    def log_mass_outside(self) -> float:
        """Return the log of the probability of open prefixes and excluded names."""
        outside = np.concatenate([self.open_scores, self._excluded_scores])
        highest = outside.max(initial=-np.inf)
        if highest == -np.inf:
            return -np.inf
        return float(highest + np.log(np.exp(outside - highest).sum()))

    def expand(self, chosen: Int64Array, width: int) -> None:
        """Put open prefixes through the model, together with small levels below them.

        A level is included if it has at most a quarter more than ``width`` prefixes: a beam of that
        width would expand almost all of them anyway, and a longer pass costs less than another one.
        A level is taken completely or not at all. So all new open prefixes have one depth, if the
        chosen ones have one depth. The new ones come last in `open_nodes`.

        Args:
            chosen: Positions in `open_nodes`.
            width: The beam's width; 0 includes no further level.
        """
        first = len(self.expanded_nodes)
        levels = [_Level(self.open_nodes[chosen], first, self._trie, self._dead)]
        parents = [self._open_parents[chosen]]
        while 0 < len(levels[-1].inner) <= width + width // 4:
            above = levels[-1]
            nodes, number = above.children[above.inner], above.first + len(above.nodes)
            levels.append(_Level(nodes, number, self._trie, self._dead))
            parents.append(above.first + above.of[above.inner])
        nodes = np.concatenate([level.nodes for level in levels])
        children = np.concatenate([level.children for level in levels])
        log_probs = self._passes.extend(
            self._trie.child_tokens[nodes - 1],
            np.concatenate(parents),
            np.concatenate([level.of + (level.first - first) for level in levels]),
            self._trie.child_tokens[children - 1],
        )
        scores = self.open_scores[chosen]
        self.open_scores[chosen] = -np.inf
        self.expanded_nodes = np.concatenate([self.expanded_nodes, nodes])
        self._take_in(levels, scores, log_probs)

    def _take_in(
        self, levels: Sequence[_Level], scores: _Float64Array, log_probs: _Float64Array
    ) -> None:
        """Add the children that a pass has scored: found names, excluded names, open prefixes.

        Args:
            levels: The levels of the pass. The nodes of each are the inner children of the level
                before it.
            scores: Scores of the first level's nodes.
            log_probs: float64, each child's log-probability after its parent, level by level.
        """
        found, found_scores = [self.found_leaves], [self.found_scores]
        start = 0
        for level in levels:
            stop = start + len(level.children)
            child_scores = scores[level.of] + log_probs[start:stop]
            if len(level.leaves):
                found.append(level.children[level.leaves])
                found_scores.append(child_scores[level.leaves])
            if len(level.dead):
                dead, dead_scores = level.children[level.dead], child_scores[level.dead]
                self._excluded_nodes = np.concatenate([self._excluded_nodes, dead])
                self._excluded_scores = np.concatenate([self._excluded_scores, dead_scores])
            start, scores = stop, child_scores[level.inner]
        last = levels[-1]
        self.found_leaves, self.found_scores = np.concatenate(found), np.concatenate(found_scores)
        self.open_nodes = np.concatenate([self.open_nodes, last.children[last.inner]])
        self.open_scores = np.concatenate([self.open_scores, scores])
        parents = last.first + last.of[last.inner]
        self._open_parents = np.concatenate([self._open_parents, parents])

    def resolved(self, leaves: Int64Array) -> tuple[_BoolArray, _Float64Array]:
        """Return which leaves have scores, and their log-probabilities (-inf without a score)."""
        nodes, scores = self._unexpanded()
        places, has_score = _find(nodes, leaves)
        return has_score, np.where(has_score, scores[places], -np.inf)

    def fronts(self, lineage: Int64Array) -> tuple[Int64Array, _Float64Array]:
        """Return the first node of each path that is not expanded.

        Args:
            lineage: int64 [n, deepest], the nodes down to each leaf, as `Trie.ancestors` gives.

        Returns:
            That node of each path, an open prefix or a leaf, int64 [n], and its log-probability,
            float64 [n].
        """
        expanded = (lineage == 0) | np.isin(lineage, self.expanded_nodes)
        fronts = lineage[np.arange(len(lineage)), (~expanded).argmax(axis=1)]
        nodes, scores = self._unexpanded()
        return fronts, scores[_find(nodes, fronts)[0]]

    def score_paths(
        self, lineage: Int64Array, fronts: Int64Array, front_scores: _Float64Array
    ) -> tuple[_Float64Array, int]:
        """Return the log-probabilities of whole names, in one pass that the tree does not keep.

        Args:
            lineage: int64 [n, deepest], the nodes down to each leaf, as `Trie.ancestors` gives.
            fronts: int64 [n], from `fronts`; none is a leaf.
            front_scores: float64 [n], from `fronts`.

        Returns:
            float64 [n], and how many tokens went through the model.
        """
        # Nodes are numbered breadth-first: those below a front have higher numbers.
        is_missing = lineage[:, :-1] >= fronts[:, None]
        nodes, rows = np.unique(lineage[:, :-1][is_missing], return_inverse=True)
        above = self._trie.parents(nodes)
        places, is_within = _find(nodes, above)
        parents = len(self.expanded_nodes) + places
        parents[~is_within] = self._numbers(above[~is_within])
        steps = np.zeros(is_missing.shape)
        steps[is_missing] = self._passes.try_out(
            self._trie.child_tokens[nodes - 1],
            parents,
            rows,
            self._trie.child_tokens[lineage[:, 1:][is_missing] - 1],
        )
        return front_scores + steps.sum(axis=1), len(nodes)

    def _numbers(self, nodes: Int64Array) -> Int64Array:
        """Return the engine's numbers of expanded nodes or of the root."""
        order = np.argsort(self.expanded_nodes)
        numbers = np.full(len(nodes), ROOT, dtype=np.int64)
        inner = nodes > 0
        numbers[inner] = order[np.searchsorted(self.expanded_nodes, nodes[inner], sorter=order)]
        return numbers

    def _unexpanded(self) -> tuple[Int64Array, _Float64Array]:
        """Return all nodes that have a score and are not expanded, rising, and their scores."""
        still = self.open_scores > -np.inf
        nodes = np.concatenate([self.open_nodes[still], self.found_leaves, self._excluded_nodes])
        scores = np.concatenate([self.open_scores[still], self.found_scores, self._excluded_scores])
        order = np.argsort(nodes)
        return nodes[order], scores[order]

    def _nodes_of_excluded_only(self) -> Int64Array:
        """Return the trie nodes whose names all belong to excluded advertisers, rising."""
        if len(self.excluded_rows) == 0:
            return np.zeros(0, dtype=np.int64)
        return self._trie.covered(self._trie.leaves_of(self.excluded_rows)[0])


class _Level:
    """The prefixes of one depth in a pass, and their children in the trie.

    Attributes:
        nodes: int64 [n], trie nodes.
        first: The engine's number of the first node; the others follow.
        children: int64 [c], trie nodes.
        of: int64 [c], the position of each child's parent in ``nodes``.
        leaves: Positions of the children that are whole names.
        dead: Positions of the children below which all names belong to excluded advertisers.
        inner: Positions of the children that may be expanded.
    """

    def __init__(self, nodes: Int64Array, first: int, trie: Trie, dead: Int64Array) -> None:
        self.nodes, self.first = nodes, first
        self.children, self.of = trie.children_of(nodes)
        is_leaf = trie.are_leaves(self.children)
        self.leaves, self.dead, self.inner = _kinds(self.children, is_leaf, dead)


def _kinds(
    children: Int64Array, is_leaf: _BoolArray, dead: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the positions of names, of excluded nodes, and of those that may be expanded."""
    if len(dead) == 0:
        return is_leaf.nonzero()[0], dead, (~is_leaf).nonzero()[0]
    is_dead = _find(dead, children)[1]
    is_inner = ~(is_leaf | is_dead)
    return (is_leaf & ~is_dead).nonzero()[0], is_dead.nonzero()[0], is_inner.nonzero()[0]


def _find(rising: Int64Array, wanted: Int64Array) -> tuple[Int64Array, _BoolArray]:
    """Return where each wanted node would be among rising nodes, and whether it is there."""
    places = np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)
    return places, rising[places] == wanted
