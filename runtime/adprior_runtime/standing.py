"""How a search stands: who leads, whether that is proved, and what to expand to prove it.

Let Q be the probabilities of the open prefixes, which are disjoint. For advertiser a, L(a) is the
sum of its names found and m(a) how many of its names are not; its true probability is at most
U(a) = L(a) + the sum of the m(a) largest of Q. The K advertisers of largest L are proved to be the
K most probable when all their names are found and the least of their L exceeds every other U; an
advertiser not met has L = 0 and at most as many names as any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.search_tree import SearchTree
from adprior_runtime.trie import Int64Array, Trie

__all__ = ["Standing"]

_Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Advertisers met: rows, L, m, the positions of the leaders, and K."""

    rows: Int64Array
    lower: _Float64Array
    unresolved: Int64Array
    leaders: Int64Array
    others: Int64Array
    wanted: int

    @property
    def threshold(self) -> float:
        """The least L of the leaders, 0 while there are too few."""
        return float(self.lower[self.leaders[-1]]) if len(self.leaders) == self.wanted else 0.0


class Standing:
    """Judges one search's tree against the K advertisers wanted of it."""

    def __init__(self, trie: Trie, excluded_rows: Int64Array, top_k: int) -> None:
        self._trie = trie
        self._eligible = len(trie.leaf_offsets) - 1 - len(excluded_rows)
        self._wanted = min(top_k, self._eligible)

    def threshold(self, tree: SearchTree) -> float:
        """Return the log-probability that a prefix must exceed to matter, -inf if any may."""
        if len(tree.found_leaves) < self._wanted:
            return -np.inf
        threshold = self._table(tree).threshold
        return float(np.log(threshold)) if threshold > 0 else -np.inf

    def is_exact(self, tree: SearchTree) -> bool:
        """Tell whether the leaders are proved to be the most probable, with all their names."""
        table = self._table(tree)
        if len(table.leaders) < self._wanted or table.unresolved[table.leaders].any():
            return False
        sums = self._largest_sums(tree)
        upper = table.lower[table.others] + sums[table.unresolved[table.others]]
        highest = float(upper.max(initial=-1.0))
        if len(table.rows) < self._eligible:
            highest = max(highest, float(sums[-1]))
        return len(table.leaders) == self._eligible or table.threshold > highest

    def choose(self, tree: SearchTree, count: int) -> Int64Array:
        """Return open prefixes to expand next, as positions in ``tree.open_nodes``.

        They are the most probable ones, as many as stand in the way of the proof, and those that
        names not found of leaders and of contenders go through; at most ``count``.
        """
        table = self._table(tree)
        most = self._trie.most_paths
        size = min(len(tree.open_scores), count + most)
        top = np.argpartition(-tree.open_scores, size - 1)[:size] if size else np.zeros(0, np.int64)
        top = top[np.argsort(-tree.open_scores[top], kind="stable")]
        top = top[tree.open_scores[top] > -np.inf]
        largest = np.append(np.exp(tree.open_scores[top]), np.zeros(most))
        windows = np.cumsum(largest) - np.append(np.zeros(most), np.cumsum(largest)[:-most])
        in_the_way = int((windows[most - 1 : most - 1 + len(top)] >= table.threshold).sum())
        chosen = top[: min(in_the_way, count)]
        if most > 1:
            extra = np.setdiff1d(self._of_contenders(tree, table), chosen)
            chosen = np.concatenate([chosen, extra])[:count]
        return chosen

    def _of_contenders(self, tree: SearchTree, table: _Table) -> Int64Array:
        """Return the open prefixes of the names not found of leaders and of those near them."""
        sums = self._largest_sums(tree)
        near = table.lower + sums[table.unresolved] >= table.threshold
        near[table.leaders] = True
        leaves, _ = self._trie.leaves_of(table.rows[near & (table.unresolved > 0)])
        leaves = leaves[~np.isin(leaves, tree.found_leaves)]
        fronts, _ = tree.fronts(self._trie.ancestors(leaves))
        return np.flatnonzero(np.isin(tree.open_nodes, fronts) & (tree.open_scores > -np.inf))

    def _table(self, tree: SearchTree) -> _Table:
        found = self._trie.leaf_advertiser[tree.found_leaves]
        rows, owners, resolved = np.unique(found, return_inverse=True, return_counts=True)
        lower: _Float64Array = np.bincount(
            owners, weights=np.exp(tree.found_scores), minlength=len(rows)
        ).astype(np.float64)
        paths = self._trie.leaf_offsets[rows + 1] - self._trie.leaf_offsets[rows]
        order = np.argsort(-lower, kind="stable")
        return _Table(
            rows=rows.astype(np.int64),
            lower=lower,
            unresolved=(paths - resolved).astype(np.int64),
            leaders=order[: self._wanted],
            others=order[self._wanted :],
            wanted=self._wanted,
        )

    def _largest_sums(self, tree: SearchTree) -> _Float64Array:
        """Return the sums of the 0, 1, 2 ... largest of Q, up to the most names anyone has."""
        most = self._trie.most_paths
        largest = np.zeros(most)
        top = -np.sort(-np.exp(tree.largest_open(most)))
        largest[: len(top)] = top
        return np.concatenate([[0.0], np.cumsum(largest)])
