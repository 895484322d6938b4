"""The part of the trie that one search has reached: expanded and open prefixes, found names.

A prefix is *expanded* if its token has gone through the model, so that its children have scores. It
is *open* if it has a score and is not expanded. Open prefixes, found names and excluded names are
disjoint, and together they cover the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int64Array, Trie
from adprior_runtime.engines.base import ROOT, Engine, FirstStep
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.search.expansion import EXPANDED, plan
from adprior_runtime.search.passes import ForwardPasses
from adprior_runtime.search.prefixes import Prefixes

_Float64Array = npt.NDArray[np.float64]
_BoolArray = npt.NDArray[np.bool_]
_NO_NODES: Final = np.zeros(0, dtype=np.int64)

Prefilled = tuple[Any, RankedTokens]
"""From `read_prompt`: an engine's state, and the log-probabilities of names' first tokens."""


def read_prompt(
    engine: Engine[Any], trie: Trie, prompt_ids: Sequence[int], width: int = 0
) -> Prefilled:
    """Put a prompt through the model, and ask for the tokens that begin a name of the trie.

    Args:
        engine: The language model.
        trie: The catalogue's names.
        prompt_ids: The prompt's tokens.
        width: The width of the beam that will search, 0 if it is not known. An engine may begin
            with it. An exact search then extends other tokens, and the bounds on what it does not
            return may differ; two answers that are proved are the same.

    Raises:
        InvalidRequestError: As `Engine.prefill`.
    """
    first = trie.first_tokens
    return engine.prefill(prompt_ids, first.token_ids, FirstStep(first, width))


class SearchTree:
    """Grows by `expand` only.

    Attributes:
        excluded_rows: int64, rising, the request's exclusions.
        extended_tokens: Tokens that have gone through the model after the prompt.
        prefixes: All that have a score.
        extended_ahead: How many of the most probable children of the root the engine has extended
            with the prompt. To expand those, and nothing below them, costs no pass. It is 0 after
            the first pass, which writes over them.
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
        state, ranked = prefilled
        self._passes = ForwardPasses(engine, state, before_pass)
        self.excluded_rows = excluded_rows
        self._dead = self._nodes_of_excluded_only()
        self.extended_tokens = 0
        self._expanded: list[Int64Array] = []
        self.prefixes = Prefixes(trie, self._dead, ranked)
        self.extended_ahead = 0 if len(self._dead) else ranked.extended

    @property
    def expanded_nodes(self) -> Int64Array:
        """The expanded nodes, int64 [expanded]; a position is the engine's number of the node."""
        return np.concatenate([_NO_NODES, *self._expanded])

    @property
    def pass_tokens(self) -> int:
        """Most tokens of one call of `score_paths`."""
        return self._passes.most_tokens

    def expand(self, chosen: Int64Array, width: int, bar: float = np.inf) -> None:
        """Put open prefixes through the model, together with others below them.

        A level is included if it has at most a quarter more than ``width`` prefixes: a beam of that
        width would expand almost all of them anyway, and a longer pass costs less than another one.
        A level is taken completely or not at all. Below it, children without siblings are included
        that are guessed to reach the bar. The new open prefixes come last in `prefixes`.

        Args:
            chosen: Positions of open ones in `prefixes`.
            width: The beam's width; 0 includes no further level.
            bar: The log-probability that a child without siblings has to reach; inf includes none.
        """
        trie, first = self._trie, self.extended_tokens
        prefixes, below = plan(
            trie.offsets,
            trie.child_tokens,
            self._dead,
            self.prefixes.nodes,
            self.prefixes.scores,
            self.prefixes.parents,
            chosen,
            first,
            width + width // 4,
            bar,
            trie.depth,
        )
        nodes, token_ids, parents = prefixes
        children, next_tokens, rows, kinds = below
        self.extended_ahead = 0
        log_probs = self._passes.extend(token_ids, parents, rows, next_tokens)
        self._expanded.append(nodes)
        self.extended_tokens += len(nodes)
        self.prefixes.add(chosen, children, rows, kinds, log_probs, first)

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
        self.extended_ahead = 0
        steps = np.zeros(is_missing.shape)
        steps[is_missing] = self._passes.try_out(
            self._trie.child_tokens[nodes - 1].astype(np.int64),
            parents,
            rows,
            self._trie.child_tokens[lineage[:, 1:][is_missing] - 1].astype(np.int64),
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
        table = self.prefixes
        table.take_in_others()
        places = (table.kinds != EXPANDED).nonzero()[0]
        places = places[np.argsort(table.nodes[places])]
        return table.nodes[places], table.scores[places]

    def _nodes_of_excluded_only(self) -> Int64Array:
        """Return the trie nodes whose names all belong to excluded advertisers, rising."""
        if len(self.excluded_rows) == 0:
            return _NO_NODES
        return self._trie.covered(self._trie.leaves_of(self.excluded_rows)[0])


def _find(rising: Int64Array, wanted: Int64Array) -> tuple[Int64Array, _BoolArray]:
    """Return where each wanted node would be among rising nodes, and whether it is there."""
    places = np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)
    return places, rising[places] == wanted
