"""Trie-constrained beam search: the most probable advertisers, and what was not looked at.

Only names of the catalogue can come out. Scores are sums of the model's own log-softmax along the
canonical tokens, terminator included: no length normalisation, no renormalisation over the tokens
that the trie allows. The search knows engines by `prefill` and `extend` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.engines.base import Engine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.trie import Int32Array, Trie

__all__ = ["Beams", "SearchCancelledError", "beam_search"]

_Float64Array = npt.NDArray[np.float64]


class SearchCancelledError(AdpriorError):
    """The caller went away while its search ran."""

    grpc_code = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beams:
    """What a search found.

    Attributes:
        paths: Token ids of every complete name met, terminator included, most probable first.
        log_probs: float64 [paths].
        frontier_log_probs: float64 [f], the prefixes met and not expanded, largest first. They are
            disjoint, and nothing of the catalogue lies outside paths and frontier.
    """

    paths: list[list[int]]
    log_probs: _Float64Array
    frontier_log_probs: _Float64Array


def beam_search(
    engine: Engine[Any],
    prompt_ids: Sequence[int],
    trie: Trie,
    *,
    width: int,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Beams:
    """Search the trie, keeping the ``width`` most probable prefixes at each depth.

    A complete name needs no forward pass of its own, so every one met is returned.

    Args:
        engine: The language model.
        prompt_ids: The rendered prompt.
        trie: The catalogue's names.
        width: Prefixes expanded at each depth.
        is_cancelled: Asked before each forward pass.

    Raises:
        SearchCancelledError: ``is_cancelled`` said so.
    """
    state, log_probs = engine.prefill(prompt_ids)
    next_log_probs = log_probs[None]
    level = _Level.root(engine.ROOT)
    found: list[tuple[float, list[int]]] = []
    dropped: list[_Float64Array] = []
    while True:
        children = level.children(trie, next_log_probs)
        rows = trie.leaf_advertiser[children.trie_nodes]
        for index in np.flatnonzero(rows >= 0):
            path = level.paths[children.parents[index]]
            found.append((children.scores[index], [*path, int(children.tokens[index])]))
        prefixes = np.flatnonzero(rows < 0)
        order = prefixes[np.argsort(-children.scores[prefixes], kind="stable")]
        dropped.append(children.scores[order[width:]])
        if len(order) == 0:
            break
        if is_cancelled():
            raise SearchCancelledError("the request was cancelled")
        level, parents = children.keep(order[:width], level)
        nodes, next_log_probs = engine.extend(state, [path[-1] for path in level.paths], parents)
        level.engine_nodes.extend(nodes)
    found.sort(key=lambda item: -item[0])
    return Beams(
        paths=[path for _, path in found],
        log_probs=np.array([score for score, _ in found]),
        frontier_log_probs=-np.sort(-np.concatenate(dropped)),
    )


@dataclass(slots=True)
class _Level:
    """The prefixes expanded at one depth."""

    trie_nodes: Int32Array
    scores: _Float64Array
    paths: list[list[int]]
    engine_nodes: list[int]

    @classmethod
    def root(cls, engine_root: int) -> _Level:
        return cls(np.zeros(1, dtype=np.int32), np.zeros(1), [[]], [engine_root])

    def children(self, trie: Trie, log_probs: npt.NDArray[np.float32]) -> _Children:
        starts = trie.offsets[self.trie_nodes].astype(np.int64)
        counts = trie.offsets[self.trie_nodes + 1] - starts
        parents = np.repeat(np.arange(len(counts)), counts)
        edges = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        tokens = trie.child_tokens[edges]
        return _Children(
            parents=parents,
            tokens=tokens,
            trie_nodes=trie.child_nodes[edges],
            scores=self.scores[parents] + log_probs[parents, tokens],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Children:
    """Every continuation that the trie allows of a level's prefixes."""

    parents: npt.NDArray[np.int64]
    tokens: Int32Array
    trie_nodes: Int32Array
    scores: _Float64Array

    def keep(self, chosen: npt.NDArray[np.int64], level: _Level) -> tuple[_Level, list[int]]:
        """Return the next level, its engine nodes to come, and their parents in the engine."""
        kept = _Level(
            self.trie_nodes[chosen],
            self.scores[chosen],
            [[*level.paths[self.parents[i]], int(self.tokens[i])] for i in chosen],
            [],
        )
        return kept, [level.engine_nodes[self.parents[i]] for i in chosen]
