"""Candidates scored along the tree that a search has grown: exactly where the budget reaches.

Every other candidate has a bound all the same: the sum of its names found and of the open prefixes
that its other names go through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.search_tree import SearchTree
from adprior_runtime.trie import Int64Array, Trie

__all__ = ["CandidateScores", "score_candidates"]

_Float64Array = npt.NDArray[np.float64]
_BoolArray = npt.NDArray[np.bool_]

_PASS_TOKENS = 512
"""A pass holds about so many tokens: attention to the others of a longer one would cost more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScores:
    """Log-probabilities of candidates.

    Attributes:
        log_probs: float64 [candidates], an upper bound where not exact.
        exact: bool [candidates].
        extended_tokens: Tokens that went through the model for them.
    """

    log_probs: _Float64Array
    exact: _BoolArray
    extended_tokens: int


def score_candidates(
    tree: SearchTree,
    trie: Trie,
    rows: Int64Array,
    token_budget: int,
    before_pass: Callable[[], None] = lambda: None,
) -> CandidateScores:
    """Score candidates, the highest bounds first, as far as the budget goes.

    Args:
        tree: Of a search; left as it was.
        trie: The catalogue's names.
        rows: int64 [candidates], rows of the catalogue, different.
        token_budget: Tokens to put through the model at most.
        before_pass: Called before each forward pass; what it raises ends the scoring.
    """
    leaves, owners = trie.leaves_of(rows)
    lineage = trie.ancestors(leaves)
    resolved, probabilities = tree.resolved(leaves)
    fronts, front_probabilities = tree.fronts(lineage)
    bounds = _bounds(len(rows), owners, resolved, probabilities, fronts, front_probabilities)
    missing = np.where(resolved, 0, ((lineage >= fronts[:, None]) & (lineage > 0)).sum(axis=1) - 1)
    chosen = _affordable(rows, owners, resolved, bounds, missing, token_budget)
    extended = 0
    # Neighbours in the trie share a pass, and what they have in common.
    in_order = chosen[np.lexsort(lineage[chosen].T[::-1])]
    for part in _passes(in_order, missing):
        before_pass()
        log_probs, tokens = tree.score_paths(lineage[part], fronts[part])
        probabilities[part] = np.exp(log_probs)
        resolved[part] = True
        extended += tokens
    bounds = _bounds(len(rows), owners, resolved, probabilities, fronts, front_probabilities)
    with np.errstate(divide="ignore"):
        log_probs = np.minimum(np.log(bounds), 0.0)
    exact = np.bincount(owners, weights=~resolved, minlength=len(rows)) == 0
    return CandidateScores(log_probs=log_probs, exact=exact, extended_tokens=extended)


def _bounds(
    count: int,
    owners: Int64Array,
    resolved: _BoolArray,
    probabilities: _Float64Array,
    fronts: Int64Array,
    front_probabilities: _Float64Array,
) -> _Float64Array:
    """Return the sum of each candidate's names, and of the prefixes that hide the others."""
    found = np.bincount(owners, weights=np.where(resolved, probabilities, 0.0), minlength=count)
    hidden = np.flatnonzero(~resolved)
    # A prefix that hides two names of one candidate counts once.
    pairs, first = np.unique(
        np.stack([owners[hidden], fronts[hidden]], axis=1), axis=0, return_index=True
    )
    weights = front_probabilities[hidden][first]
    return np.add(found, np.bincount(pairs[:, 0], weights=weights, minlength=count))


def _affordable(
    rows: Int64Array,
    owners: Int64Array,
    resolved: _BoolArray,
    bounds: _Float64Array,
    missing: Int64Array,
    token_budget: int,
) -> Int64Array:
    """Return the leaves to score, as positions: whole candidates, the highest bounds first."""
    costs = np.bincount(owners, weights=missing, minlength=len(rows))
    order = np.argsort(-bounds, kind="stable")
    affordable = np.zeros(len(rows), dtype=np.bool_)
    affordable[order] = np.cumsum(costs[order]) <= token_budget
    return np.flatnonzero(affordable[owners] & ~resolved)


def _passes(leaves: Int64Array, missing: Int64Array) -> Iterator[Int64Array]:
    """Cut leaves into passes of about `_PASS_TOKENS`."""
    if len(leaves):
        number = np.cumsum(missing[leaves]) // _PASS_TOKENS
        yield from np.split(leaves, np.flatnonzero(np.diff(number)) + 1)
