"""The advertisers that a system should return.

They are the certified forecast. Where the certificate fails, every advertiser whose upper bound
reaches the last one's probability is scored too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The most probable advertisers after one prompt.

    Attributes:
        rows: Their rows in the catalogue. All that are as probable as the last one, up to
            rounding, are among them.
        is_certified: Whether the certificate proved them without further scoring.
    """

    rows: frozenset[int]
    is_certified: bool


def find_truth(
    engine: Engine[Any], trie: Trie, prompt: Sequence[int], settings: SearchSettings, top_k: int
) -> Truth:
    """Return the ``top_k`` most probable advertisers.

    Args:
        engine: The language model.
        trie: The catalogue's names.
        prompt: Token ids.
        settings: The width and the margin; the budget is as large as needed.
        top_k: Number of advertisers.
    """
    names, everyone = len(trie.leaf_nodes), np.arange(len(trie.leaf_offsets) - 1)
    whole_budget = names * trie.depth
    settings = replace(settings, mode=SearchMode.EXACT, token_budget=whole_budget)
    search = TrieSearch(engine, trie, read_prompt(engine, trie, prompt), settings)
    is_certified = search.run(top_k).exact
    bounds = search.score(everyone, token_budget=0)
    known = bounds.log_probs[bounds.exact]
    possible = everyone[bounds.log_probs >= _kth(known, top_k) - settings.margin_nats]
    scores = search.score(possible, token_budget=whole_budget).log_probs
    chosen = possible[scores >= _kth(scores, top_k) - settings.margin_nats]
    return Truth(rows=frozenset(chosen.tolist()), is_certified=is_certified)


def _kth(log_probs: npt.NDArray[np.float64], k: int) -> float:
    """Return the k-th largest, -inf if there are fewer."""
    return float(np.sort(log_probs)[-k]) if len(log_probs) >= k else -np.inf
