"""The host's work of a search: selection, tree and packing, with a forward pass that costs nothing.

On a GPU many users share a forward pass, but the host prepares and evaluates each user's part of
it. So the host's work limits how many users one GPU can serve.

The searches run in a `PassLoop`, as on a GPU. All times are processor time of one thread, without
the time in which `NullPasses` makes up log-probabilities.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_bench.search.null_passes import NullPasses
from adprior_bench.search.rows import WARM_UP, summarise
from adprior_bench.search.synthetic import PROMPT_TOKENS, VOCABULARY, random_catalogue
from adprior_bench.search.traffic import measure_traffic
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass, UserTree
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import Prefilled, read_prompt

_TIMES: Final = ("host_us", "search_us", "packing_us", "prefill_us")


class _ClockedPasses(SharedPasses):
    """Passes that tell an engine when it begins to wait, and when it goes on."""

    def __init__(self, passes: NullPasses) -> None:
        super().__init__(passes)
        self.seconds, self.since = 0.0, 0.0

    def run(self, part: UserPass) -> LogProbs:
        self.seconds += time.thread_time() - self.since
        log_probs = super().run(part)
        self.since = time.thread_time()
        return log_probs


class _ClockedEngine(PackedTreeEngine):
    """An engine whose passes sum the processor time of `extend`, without that of the passes."""

    def __init__(self, passes: _ClockedPasses, prompt_tokens: int) -> None:
        super().__init__(passes, vocabulary=VOCABULARY, max_positions=prompt_tokens + 1)
        self._clock = passes

    def extend(self, state: UserTree, *args: npt.ArrayLike, keep: bool = True) -> LogProbs:
        self._clock.since = time.thread_time()
        log_probs = super().extend(state, *args, keep=keep)
        self._clock.seconds += time.thread_time() - self._clock.since
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
    plain = PackedTreeEngine(
        SharedPasses(passes), vocabulary=VOCABULARY, max_positions=len(prompt) + 1
    )
    clock = _ClockedPasses(passes)
    clocked = _ClockedEngine(clock, len(prompt))
    rounds, traffic = [], []
    label = f"{settings.mode} {len(trie.leaf_nodes)}"

    def search(engine: PackedTreeEngine) -> tuple[float, float]:
        """Return the seconds a pass of the prefills and of the searches."""
        passes.user = 0
        passes.reset()
        start = time.thread_time()
        users = [read_prompt(engine, trie, prompt) for _ in range(args.host_work)]
        prefill = (time.thread_time() - start - passes.seconds) / passes.passes
        passes.reset()
        clock.seconds = 0.0
        start = time.thread_time()
        found[:] = _search_together(loop, engine, trie, users, settings, args.top_k)
        return prefill, (time.thread_time() - start - passes.seconds) / passes.passes

    loop = PassLoop()  # a server has one for all searches
    found: list[SearchResult] = []
    for _ in tqdm(range(args.rounds + WARM_UP), unit="round", desc=label, leave=False):
        search(clocked)  # reading the clock takes time, too
        packing = (clock.seconds + passes.join_seconds) / passes.passes
        prefill, host = search(plain)
        rounds.append((host, host - packing, packing, prefill))
        traffic.append(measure_traffic(trie, prompt, settings, args.host_work, args.top_k, loop))
    row: dict[str, Any] = {"catalogue_size": len(trie.leaf_nodes), "mode": str(settings.mode)}
    for name, column in zip(_TIMES, 1e6 * np.array(rounds).T, strict=True):
        row |= summarise(name, column.tolist())
    for name in ("asked_user_host_us", "user_host_us"):
        row |= summarise(name, [each.pop(name) for each in traffic])
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
        **traffic[-1],
    }


def _search_together(
    loop: PassLoop,
    engine: PackedTreeEngine,
    trie: Trie,
    users: Sequence[Prefilled],
    settings: SearchSettings,
    top_k: int,
) -> list[SearchResult]:
    """Search for users whose passes are joined, as a server on a GPU does."""
    found: list[SearchResult] = []

    def search(user: Prefilled) -> None:
        found.append(TrieSearch(engine, trie, user, settings).run(top_k))

    loop.run([partial(search, user) for user in users])
    return found
