"""The search as it was first built, kept to be measured against.

It runs on today's engine and trie and is otherwise as it was: one forward pass a depth, as many
prefixes in each as the beam is wide, nothing looked at ahead, no certificate, paths as lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int32Array, Int64Array, Trie
from adprior_runtime.engines.base import ROOT, Engine

_Float64Array = npt.NDArray[np.float64]


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


def beam_search(engine: Engine[Any], prompt_ids: Sequence[int], trie: Trie, *, width: int) -> Beams:
    """Search the trie, keeping the ``width`` most probable prefixes at each depth.

    A complete name needs no forward pass of its own, so every one met is returned.

    Args:
        engine: The language model.
        prompt_ids: The rendered prompt.
        trie: The catalogue's names.
        width: Prefixes expanded at each depth.
    """
    state, log_probs = engine.prefill(prompt_ids)
    next_log_probs = log_probs[None]
    level = _Level.root()
    found: list[tuple[float, list[int]]] = []
    dropped: list[_Float64Array] = []
    extended = 0
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
        level, parents = children.keep(order[:width], level)
        next_log_probs = engine.extend(state, [path[-1] for path in level.paths], parents)
        level.engine_nodes.extend(range(extended, extended + len(parents)))
        extended += len(parents)
    found.sort(key=lambda item: -item[0])
    return Beams(
        paths=[path for _, path in found],
        log_probs=np.array([score for score, _ in found]),
        frontier_log_probs=-np.sort(-np.concatenate(dropped)),
    )


@dataclass(slots=True)
class _Level:
    """The prefixes expanded at one depth."""

    trie_nodes: Int64Array
    scores: _Float64Array
    paths: list[list[int]]
    engine_nodes: list[int]

    @classmethod
    def root(cls) -> _Level:
        return cls(np.zeros(1, dtype=np.int64), np.zeros(1), [[]], [ROOT])

    def children(self, trie: Trie, log_probs: npt.NDArray[np.float32]) -> _Children:
        starts = trie.offsets[self.trie_nodes].astype(np.int64)
        counts = trie.offsets[self.trie_nodes + 1] - starts
        parents = np.repeat(np.arange(len(counts)), counts)
        edges = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        tokens = trie.child_tokens[edges]
        return _Children(
            parents=parents,
            tokens=tokens,
            trie_nodes=edges + 1,
            scores=self.scores[parents] + log_probs[parents, tokens],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Children:
    """Every continuation that the trie allows of a level's prefixes."""

    parents: Int64Array
    tokens: Int32Array
    trie_nodes: Int64Array
    scores: _Float64Array

    def keep(self, chosen: Int64Array, level: _Level) -> tuple[_Level, list[int]]:
        """Return the next level, its engine nodes to come, and their parents in the engine."""
        kept = _Level(
            self.trie_nodes[chosen],
            self.scores[chosen],
            [[*level.paths[self.parents[i]], int(self.tokens[i])] for i in chosen],
            [],
        )
        return kept, [level.engine_nodes[self.parents[i]] for i in chosen]
