"""The host's work of a search: selection, tree and packing, with a forward pass that costs nothing.

On a GPU many users share a forward pass, but the host prepares and evaluates each user's part of
it. So the host's work limits how many users one GPU can serve.

The searches run in a `PassLoop`, as on a GPU. All times are processor time of one thread, without
the time in which `NullPasses` makes up log-probabilities.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import Prefilled, read_prompt

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
        seconds: Processor time of all passes, without that of joining them.
        join_seconds: Processor time of joining users' passes.
        passes: Number of passes, each user's counted.
        sent_bytes: What the torch engine would send to the device for them, without padding.
        returned_bytes: What the device would return.
    """

    def __init__(self) -> None:
        ranks = np.random.default_rng(3).permutation(_WEIGHTS) + 1.0
        self._weights = ranks**-1.5
        self.user = 0
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        self.seconds = self.join_seconds = 0.0
        self.passes = 0
        self.sent_bytes = self.returned_bytes = 0

    def empty_cache(self) -> NullCache:
        """See `Passes.empty_cache`; each call begins another user."""
        self.user += 1
        return NullCache(self.user)

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[LogProbs]]:
        """See `JoinablePasses.start`; joins the passes as the torch engine does for a GPU."""
        begin = time.thread_time()
        passes = [part.tree_pass for part in parts]
        sizes = PassSizes.of(passes).rounded_up()
        join_passes(passes, [0] * len(parts), sizes, 0)
        joined = time.thread_time()
        answers = [self._log_probs(part) for part in parts]
        self.passes += len(parts)
        for each in passes:
            self.sent_bytes += PassSizes.of([each]).numbers * np.dtype(np.int32).itemsize
            self.returned_bytes += len(each.pair_tokens) * np.dtype(np.float32).itemsize
        self.join_seconds += joined - begin
        self.seconds += time.thread_time() - joined
        return lambda: answers

    def _log_probs(self, part: UserPass) -> LogProbs:
        tree_pass = part.tree_pass
        rows = tree_pass.pair_rows
        positions = tree_pass.new_positions[tree_pass.wanted][rows]
        places = tree_pass.pair_tokens * 40_503 + positions * 9_973 + part.cache.user * 7_919
        weights = self._weights[places % _WEIGHTS]
        log_probs: LogProbs = np.log(
            _ON_NAMES * weights / np.bincount(rows, weights=weights)[rows]
        ).astype(np.float32)
        return log_probs


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
    rounds = []
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
