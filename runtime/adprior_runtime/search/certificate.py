"""The certificate: which advertisers lead, whether that is proved, and what to expand to prove it.

Let Q be the probabilities of the open prefixes, which are disjoint. For advertiser a, L(a) is the
sum of its names that were found, and m(a) the number of its other names. Its true probability is at
most U(a) = L(a) + the sum of the m(a) largest of Q. An advertiser without a found name has L = 0,
and m is the largest number of names of any advertiser.

The K advertisers of largest L are proved to be the K most probable if all their names are found and
their smallest log L exceeds every other log U by more than the margin of
`adprior_runtime.search.rounding`; a smaller difference may come from rounding.

All values are logs, so that probabilities below what a double can hold are still ordered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.aliases import sum_aliases
from adprior_runtime.catalogue.trie import Int64Array, Trie
from adprior_runtime.search.rounding import provable_below
from adprior_runtime.search.tree import SearchTree

_Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The advertisers with a found name.

    Attributes:
        rows: int64 [advertisers].
        lower: float64 [advertisers], log L.
        unresolved: int64 [advertisers], m.
        leaders: Positions of the K advertisers of largest L.
        others: Positions of all other advertisers.
        wanted: K.
    """

    rows: Int64Array
    lower: _Float64Array
    unresolved: Int64Array
    leaders: Int64Array
    others: Int64Array
    wanted: int

    @property
    def threshold(self) -> float:
        """The smallest log L of the leaders, -inf while there are fewer than K."""
        if self.wanted == 0:
            return np.inf
        return float(self.lower[self.leaders[-1]]) if len(self.leaders) == self.wanted else -np.inf


class Standing:
    """Judges one search's tree: whether its K leading advertisers are proved.

    Args:
        trie: The catalogue's names.
        excluded_rows: Advertisers that do not count, rising.
        top_k: K.
        margin_nats: The smallest difference that proves an order.
    """

    def __init__(
        self, trie: Trie, excluded_rows: Int64Array, top_k: int, margin_nats: float
    ) -> None:
        self._trie = trie
        self._excluded_rows = excluded_rows
        self._eligible = len(trie.leaf_offsets) - 1 - len(excluded_rows)
        self._wanted = min(top_k, self._eligible)
        self._margin = margin_nats
        self._latest: tuple[int, _Table] | None = None

    def threshold(self, tree: SearchTree) -> float:
        """Return the log-probability that a prefix must exceed to matter; -inf if all matter."""
        if len(tree.found_leaves) < self._wanted:
            return -np.inf
        return self._bar(self._table(tree))

    def is_exact(self, tree: SearchTree) -> bool:
        """Return whether the leaders are proved to be the most probable, with all their names."""
        table = self._table(tree)
        if len(table.leaders) < self._wanted or table.unresolved[table.leaders].any():
            return False
        if len(table.leaders) == self._eligible:
            return True
        return self._bar(table) > self._highest_bound(tree, table)

    def is_tied(self, tree: SearchTree) -> bool:
        """Return whether no expansion can complete the proof.

        All names of the leaders are found and no other advertiser can pass them, but the found
        names of another come so close that the difference may be due to rounding.
        """
        table = self._table(tree)
        if len(table.leaders) < self._wanted or table.unresolved[table.leaders].any():
            return False
        closest = table.lower[table.others].max(initial=-np.inf)
        is_close = closest >= self._bar(table)
        return bool(is_close) and self._highest_bound(tree, table) <= table.threshold

    def choose(self, tree: SearchTree, count: int) -> Int64Array:
        """Return at most ``count`` open prefixes to expand, as positions in ``tree.open_nodes``.

        First the most probable prefixes that block the proof, then prefixes of names not yet found
        of leaders and close rivals.
        """
        table = self._table(tree)
        most = self._trie.most_paths
        size = min(len(tree.open_scores), count + most)
        top = np.argpartition(-tree.open_scores, size - 1)[:size] if size else np.zeros(0, np.int64)
        top = top[np.argsort(-tree.open_scores[top], kind="stable")]
        top = top[tree.open_scores[top] > -np.inf]
        scores = tree.open_scores[top]
        # Relative to the largest, so that it does not underflow.
        largest = np.append(np.exp(scores - scores[:1]), np.zeros(most))
        bar = np.exp(np.minimum(self._bar(table) - scores[:1], 1.0 + np.log(most)))
        windows = np.cumsum(largest) - np.append(np.zeros(most), np.cumsum(largest)[:-most])
        blocking = int((windows[most - 1 : most - 1 + len(top)] >= bar).sum())
        chosen = top[: min(blocking, count)]
        if most > 1:
            extra = np.setdiff1d(self._prefixes_of_rivals(tree, table), chosen)
            chosen = np.concatenate([chosen, extra])[:count]
        return chosen

    def _prefixes_of_rivals(self, tree: SearchTree, table: _Table) -> Int64Array:
        """Return the open prefixes of the missing names of leaders and close rivals."""
        sums = self._largest_sums(tree)
        upper = np.logaddexp(table.lower, sums[table.unresolved])
        near = upper >= self._bar(table)
        near[table.leaders] = True
        leaves, _ = self._trie.leaves_of(table.rows[near & (table.unresolved > 0)])
        leaves = leaves[~np.isin(leaves, tree.found_leaves)]
        fronts, _ = tree.fronts(self._trie.ancestors(leaves))
        return np.flatnonzero(np.isin(tree.open_nodes, fronts) & (tree.open_scores > -np.inf))

    def _bar(self, table: _Table) -> float:
        """Return the log-probability below which all others must be for the proof."""
        return provable_below(table.threshold, self._margin)

    def _highest_bound(self, tree: SearchTree, table: _Table) -> float:
        """Return the largest log U of the other advertisers, -inf if there are none."""
        sums = self._largest_sums(tree)
        upper = np.logaddexp(table.lower[table.others], sums[table.unresolved[table.others]])
        highest = float(upper.max(initial=-np.inf))
        return max(highest, float(sums[-1])) if len(table.rows) < self._eligible else highest

    def _table(self, tree: SearchTree) -> _Table:
        """Return the table, made anew after an expansion."""
        if self._latest is None or self._latest[0] != tree.extended_tokens:
            self._latest = tree.extended_tokens, self._new_table(tree)
        return self._latest[1]

    def _new_table(self, tree: SearchTree) -> _Table:
        owners = self._trie.leaf_advertiser[tree.found_leaves].astype(np.int64)
        scores = tree.found_scores
        if len(self._excluded_rows):
            counted = ~np.isin(owners, self._excluded_rows)
            owners, scores = owners[counted], scores[counted]
        if self._trie.most_paths == 1:
            rows, lower, unresolved = owners, scores, np.zeros_like(owners)
        else:
            rows, lower, resolved = sum_aliases(owners, scores)
            paths = self._trie.leaf_offsets[rows + 1] - self._trie.leaf_offsets[rows]
            unresolved = paths - resolved
        order = np.argsort(-lower, kind="stable")
        return _Table(
            rows=rows,
            lower=lower,
            unresolved=unresolved,
            leaders=order[: self._wanted],
            others=order[self._wanted :],
            wanted=self._wanted,
        )

    def _largest_sums(self, tree: SearchTree) -> _Float64Array:
        """Return logs of the sums of the 0, 1 ... largest of Q, up to the largest m."""
        if self._trie.most_paths == 1:
            return np.array([-np.inf, tree.open_scores.max(initial=-np.inf)])
        largest = np.full(self._trie.most_paths + 1, -np.inf)
        found = -np.sort(-tree.largest_open(self._trie.most_paths))
        largest[1 : 1 + len(found)] = found
        sums: _Float64Array = np.logaddexp.accumulate(largest)
        return sums
