"""Scores candidates on the tree of a search: exactly, until the token budget is spent.

Other candidates get an upper bound: found names plus the open prefixes of names not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.aliases import sum_aliases
from adprior_runtime.catalogue.trie import Int64Array, Trie
from adprior_runtime.search.passes import even_share
from adprior_runtime.search.tree import SearchTree

_Float64Array = npt.NDArray[np.float64]
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScores:
    """Log-probabilities of candidates.

    Attributes:
        log_probs: float64 [candidates], an upper bound if not exact.
        exact: bool [candidates].
        extended_tokens: Tokens that went through the model for them.
    """

    log_probs: _Float64Array
    exact: _BoolArray
    extended_tokens: int


def score_candidates(
    tree: SearchTree, trie: Trie, rows: Int64Array, token_budget: int
) -> CandidateScores:
    """Score candidates, the highest bounds first, until the budget is spent.

    A candidate keeps its bound if it costs more than the rest of the budget, or if one of its names
    needs more tokens than a pass may have. Cheaper candidates after it are still scored.

    Args:
        tree: A search's; it does not change.
        trie: The catalogue's names.
        rows: int64 [candidates], distinct rows of the catalogue.
        token_budget: Most tokens to put through the model.
    """
    leaves, owners = trie.leaves_of(rows)
    lineage = trie.ancestors(leaves)
    resolved, log_probs = tree.resolved(leaves)
    fronts, front_scores = tree.fronts(lineage)
    bounds = _bounds(owners, resolved, log_probs, fronts, front_scores)
    missing = np.where(resolved, 0, ((lineage >= fronts[:, None]) & (lineage > 0)).sum(axis=1) - 1)
    pass_tokens = tree.pass_tokens
    prices = np.where(missing > pass_tokens, np.inf, missing)
    chosen = _affordable(owners, resolved, bounds, prices, token_budget)
    extended = 0
    # Neighbours in the trie share a pass, and their common prefixes.
    in_order = chosen[np.lexsort(lineage[chosen].T[::-1])]
    for part in _passes(in_order, missing, pass_tokens):
        log_probs[part], tokens = tree.score_paths(lineage[part], fronts[part], front_scores[part])
        resolved[part] = True
        extended += tokens
    bounds = _bounds(owners, resolved, log_probs, fronts, front_scores)
    exact = np.bincount(owners, weights=~resolved, minlength=len(rows)) == 0
    return CandidateScores(log_probs=np.minimum(bounds, 0.0), exact=exact, extended_tokens=extended)


def _bounds(
    owners: Int64Array,
    resolved: _BoolArray,
    log_probs: _Float64Array,
    fronts: Int64Array,
    front_scores: _Float64Array,
) -> _Float64Array:
    """Return an upper bound on each candidate's log-probability: found names plus open prefixes.

    Every candidate has a name, and its names are neighbours in the arrays.
    """
    # If two names of a candidate share an open prefix, the prefix counts once.
    order = np.lexsort((fronts, resolved, owners))
    again = np.zeros(len(order), dtype=np.bool_)
    same = (owners[order][1:] == owners[order][:-1]) & (fronts[order][1:] == fronts[order][:-1])
    again[1:] = same & ~resolved[order][1:] & ~resolved[order][:-1]
    values = np.where(resolved, log_probs, front_scores)[order]
    values[again] = -np.inf
    return sum_aliases(owners[order], values).log_probs


def _affordable(
    owners: Int64Array,
    resolved: _BoolArray,
    bounds: _Float64Array,
    prices: _Float64Array,
    token_budget: int,
) -> Int64Array:
    """Return the positions of the leaves to score: all names of the candidates that fit the budget.

    The candidates with the highest bounds come first.
    """
    costs = np.bincount(owners, weights=prices, minlength=len(bounds))
    affordable = np.zeros(len(bounds), dtype=np.bool_)
    left = float(token_budget)
    for candidate in np.argsort(-bounds, kind="stable"):
        if (cost := costs[candidate]) <= left:
            affordable[candidate] = True
            left -= cost
    return np.flatnonzero(affordable[owners] & ~resolved)


def _passes(leaves: Int64Array, missing: Int64Array, pass_tokens: int) -> Iterator[Int64Array]:
    """Split leaves into passes that need at most ``pass_tokens`` tokens each, all about as many."""
    ends = np.cumsum(missing[leaves])
    start = 0
    while start < len(leaves):
        before = ends[start] - missing[leaves[start]]
        share = even_share(int(ends[-1] - before), pass_tokens)
        enough = int(np.searchsorted(ends, before + share)) + 1
        stop = min(enough, int(np.searchsorted(ends, before + pass_tokens, side="right")))
        yield leaves[start:stop]
        start = stop
