"""The host's work of a search: selection, tree and packing, with a forward pass that costs nothing.

On a GPU many users share a forward pass, but the host prepares and evaluates each user's part of
it. So the host's work limits how many users one GPU can serve.

All times are processor time of one thread, without the time of `NullPasses`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_bench.search.rows import WARM_UP, summarise
from adprior_bench.search.synthetic import PROMPT_TOKENS, VOCABULARY, random_catalogue
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import PassSizes, join_passes
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass, UserTree
from adprior_runtime.search.search import SearchMode, SearchSettings, TrieSearch
from adprior_runtime.search.tree import read_prompt

_TIMES: Final = ("host_us", "search_us", "packing_us", "prefill_us")
_WEIGHTS: Final = 2**16
_ON_NAMES: Final = 0.86
"""Share of a node's probability that its children in the trie get, as in the shipped model."""


@dataclass(slots=True)
class NullCache:
    """One user: a number that changes all weights."""

    user: int

    def fork(self) -> Self:
        """Return the same user again."""
        return type(self)(self.user)


class NullPasses:
    """Forward passes without a model.

    The tokens that are asked for after a row share 0.86 of its probability, by Zipf's law with the
    exponent 1.5 in an order that depends on user, position and token.

    Attributes:
        user: The number of the next user; set it back to get the same users again.
        seconds: Processor time of all passes.
        passes: Number of passes.
        sent_bytes: What the torch engine would send to the device for them.
        returned_bytes: What the device would return.
    """

    def __init__(self) -> None:
        ranks = np.random.default_rng(3).permutation(_WEIGHTS) + 1.0
        self._weights = ranks**-1.5
        self.user = 0
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        self.seconds, self.passes = 0.0, 0
        self.sent_bytes = self.returned_bytes = 0

    def empty_cache(self) -> NullCache:
        """See `Passes.empty_cache`; each call begins another user."""
        self.user += 1
        return NullCache(self.user)

    def run(self, part: UserPass) -> LogProbs:
        """See `Passes.run`."""
        tree_pass = part.tree_pass
        sizes = PassSizes.of([tree_pass])
        sent = join_passes([tree_pass], [0], sizes, 0)  # counts as packing
        start = time.thread_time()
        rows = tree_pass.pair_rows
        positions = tree_pass.new_positions[tree_pass.wanted][rows]
        places = tree_pass.pair_tokens * 40_503 + positions * 9_973 + part.cache.user * 7_919
        weights = self._weights[places % _WEIGHTS]
        log_probs: LogProbs = np.log(
            _ON_NAMES * weights / np.bincount(rows, weights=weights)[rows]
        ).astype(np.float32)
        self.passes += 1
        self.sent_bytes += sent.nbytes
        self.returned_bytes += log_probs.nbytes
        self.seconds += time.thread_time() - start
        return log_probs


class _ClockedEngine(PackedTreeEngine):
    """An engine that sums the processor time of `extend`, its passes included."""

    seconds = 0.0

    def extend(self, state: UserTree, *args: npt.ArrayLike, keep: bool = True) -> LogProbs:
        start = time.thread_time()
        log_probs = super().extend(state, *args, keep=keep)
        self.seconds += time.thread_time() - start
        return log_probs


def measure_host_work(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each size of a synthetic catalogue and each mode of search."""
    prompt = (
        np.random.default_rng(7)
        .integers(3, VOCABULARY, args.prompt_tokens or PROMPT_TOKENS)
        .tolist()
    )
    rows = []
    for size in sorted(args.sizes):
        trie = random_catalogue(size)
        for mode in SearchMode:
            settings = SearchSettings(mode=mode, width=args.width).for_top_k(args.top_k)
            rows.append(_measure(trie, prompt, settings, args))
    return rows


def _measure(
    trie: Trie, prompt: Sequence[int], settings: SearchSettings, args: argparse.Namespace
) -> dict[str, Any]:
    """Search for the same users in every round."""
    passes = NullPasses()
    engine = _ClockedEngine(passes, vocabulary=VOCABULARY, max_positions=len(prompt) + 1)
    rounds = []
    label = f"{settings.mode} {len(trie.leaf_nodes)}"
    for _ in tqdm(range(args.rounds + WARM_UP), unit="round", desc=label, leave=False):
        passes.user = 0
        passes.reset()
        start = time.thread_time()
        users = [read_prompt(engine, trie, prompt) for _ in range(args.host_work)]
        prefill = (time.thread_time() - start - passes.seconds) / passes.passes
        passes.reset()
        engine.seconds = 0.0
        start = time.thread_time()
        found = [TrieSearch(engine, trie, user, settings).run(args.top_k) for user in users]
        host = (time.thread_time() - start - passes.seconds) / passes.passes
        packing = (engine.seconds - passes.seconds) / passes.passes
        rounds.append((host, host - packing, packing, prefill))
    row: dict[str, Any] = {"catalogue_size": len(trie.leaf_nodes), "mode": str(settings.mode)}
    for name, column in zip(_TIMES, 1e6 * np.array(rounds).T, strict=True):
        row |= summarise(name, column.tolist())
    return row | {
        "users": args.host_work,
        "beam_width": settings.width,
        "top_k": args.top_k,
        "prompt_tokens": len(prompt),
        "passes_per_user": passes.passes / args.host_work,
        "extended_tokens": float(np.mean([result.extended_tokens for result in found])),
        "exact_fraction": float(np.mean([result.exact for result in found])),
        "sent_bytes": passes.sent_bytes / passes.passes,
        "returned_bytes": passes.returned_bytes / passes.passes,
    }
