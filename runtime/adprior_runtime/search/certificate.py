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

import numpy as np

from adprior_runtime.catalogue.trie import Int64Array, Trie
from adprior_runtime.search.expansion import OPEN
from adprior_runtime.search.ranking import Verdict, blocking, judge, likely_open, rivals
from adprior_runtime.search.rounding import provable_below
from adprior_runtime.search.tree import SearchTree


class Standing:
    """Judges one search's tree: whether its K leading advertisers are proved.

    Args:
        trie: The catalogue's names.
        ignored_rows: Advertisers that do not count, rising.
        top_k: K.
        margin_nats: The smallest difference that proves an order.
    """

    def __init__(
        self, trie: Trie, ignored_rows: Int64Array, top_k: int, margin_nats: float
    ) -> None:
        self._trie = trie
        self._names = trie.leaf_advertiser, trie.leaf_offsets, ignored_rows
        self._eligible = len(trie.leaf_offsets) - 1 - len(ignored_rows)
        self._wanted = min(top_k, self._eligible)
        self._margin = margin_nats
        self._latest: tuple[int, Verdict] | None = None

    def threshold(self, tree: SearchTree) -> float:
        """Return the log-probability that a prefix must exceed to matter; -inf if all matter."""
        if tree.prefixes.names < self._wanted:
            return -np.inf
        return self._bar(self._verdict(tree))

    def is_complete(self, tree: SearchTree) -> bool:
        """Return whether as many advertisers as wanted have a found name."""
        return self._verdict(tree).leaders == self._wanted

    def is_exact(self, tree: SearchTree) -> bool:
        """Return whether the leaders are proved to be the most probable, with all their names."""
        verdict = self._verdict(tree)
        if verdict.leaders < self._wanted or verdict.missing:
            return False
        if verdict.leaders == self._eligible:
            return True
        return bool(self._bar(verdict) > verdict.highest)  # NUMBA_DISABLE_JIT gives NumPy's

    def is_tied(self, tree: SearchTree) -> bool:
        """Return whether no expansion can complete the proof.

        All names of the leaders are found and no other advertiser can pass them, but the found
        names of another come so close that the difference may be due to rounding.
        """
        verdict = self._verdict(tree)
        if verdict.leaders < self._wanted or verdict.missing:
            return False
        return self._bar(verdict) <= verdict.closest and verdict.highest <= verdict.threshold

    def choose(self, tree: SearchTree, count: int) -> tuple[Int64Array, float]:
        """Return at most ``count`` open prefixes to expand, and the bar.

        Before K advertisers are found, they are the most probable ones, as far as a leader is
        likely below them. Then the most probable prefixes that block the proof come first, and
        prefixes of names not yet found of leaders and close rivals after them.

        Returns:
            Positions in ``tree.prefixes``, and the log-probability that matters, or is likely to.
        """
        table, most = tree.prefixes, self._trie.most_paths
        is_complete = self.is_complete(tree)
        table.reach(count + most)
        if not is_complete:
            chosen, bar = likely_open(
                *self._names, *table.columns, self._trie.offsets, self._wanted, most, count
            )
        else:
            bar = self._bar(self._verdict(tree))
            chosen = blocking(table.scores, table.kinds, count, most, bar)
            if most > 1 and len(chosen) < count:
                table.take_in_others()  # rivals may have names anywhere; positions change
                chosen = blocking(table.scores, table.kinds, count, most, bar)
                extra = np.setdiff1d(self._prefixes_of_rivals(tree, bar), chosen)
                chosen = np.concatenate([chosen, extra])[:count]
        if len(chosen) == count:  # the round is full: what is less probable waits
            bar = max(bar, table.scores[chosen[-1]])
        return chosen, bar

    def _prefixes_of_rivals(self, tree: SearchTree, bar: float) -> Int64Array:
        """Return the open prefixes of the missing names of leaders and close rivals."""
        trie, table = self._trie, tree.prefixes
        rows = rivals(*self._names, *table.columns, self._wanted, trie.most_paths, bar)
        leaves, _ = trie.leaves_of(rows)
        leaves = leaves[~np.isin(leaves, table.found()[0])]
        fronts, _ = tree.fronts(trie.ancestors(leaves))
        return np.flatnonzero(np.isin(table.nodes, fronts) & (table.kinds == OPEN))

    def _bar(self, verdict: Verdict) -> float:
        """Return the log-probability below which all others must be for the proof."""
        return provable_below(verdict.threshold, self._margin)

    def _verdict(self, tree: SearchTree) -> Verdict:
        """Return the verdict, made anew after an expansion."""
        if self._latest is None or self._latest[0] != tree.extended_tokens:
            tree.prefixes.reach(self._trie.most_paths)
            verdict = judge(
                *self._names,
                *tree.prefixes.columns,
                self._wanted,
                self._eligible,
                self._trie.most_paths,
            )
            self._latest = tree.extended_tokens, verdict
        return self._latest[1]
