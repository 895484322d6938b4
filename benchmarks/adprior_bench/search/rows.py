"""The rows of the search benchmark, and their measurement: prefills and searches in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine, FirstStep, LogProbs
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

WARM_UP = 4
"""Measurements that are discarded first."""

ROW_KEYS = (
    "model", "engine", "precision", "mode", "catalogue_size", "prompt_tokens", "beam_width",
    "top_k", "prefill_ms", "prefill_ms_quartiles", "search_ms", "search_ms_quartiles",
    "search_over_prefill", "extended_tokens", "work_ratio", "peer",
    "peer_ms", "peer_ms_quartiles", "peer_over_search", "select_ms_per_step", "root_select_ms",
    "exact_fraction", "log_prob_difference", "clock", "rss_mb", "loaded_mb", "peak_mb",
    "weights_mb", "cache_mb", "peak_over_weights_and_cache",
)  # fmt: skip
"""The keys of every row; a value is null where it does not apply. ``work_ratio`` is the search's
time over that of reading as many tokens as a prompt; a row of candidates has no prompt in it."""

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"elapsed": time.perf_counter, "processor": time.process_time}
"""Clocks in seconds, by the option ``--clock``: of the wall, or the processor time of all threads,
which other processes hardly change."""


def make_row(**values: Any) -> dict[str, Any]:
    """Return a row of ``adprior bench search``, with this process's memory."""
    if unknown := values.keys() - set(ROW_KEYS):
        raise ValueError(f"unknown keys of a row: {sorted(unknown)}")
    import psutil  # noqa: PLC0415  other benchmarks do not need it

    rss_mb = psutil.Process().memory_info().rss / 2**20
    return (
        dict.fromkeys(ROW_KEYS) | {"engine": "onnx", "precision": "fp32", "rss_mb": rss_mb} | values
    )


def summarise(name: str, times_ms: Sequence[float]) -> dict[str, Any]:
    """Return the median and the quartiles after the warm-up, as two items of a row."""
    counted = times_ms[WARM_UP:]
    low, median, high = (float(value) for value in np.quantile(counted, [0.25, 0.5, 0.75]))
    return {name: median, f"{name}_quartiles": [low, high]}


@dataclass(slots=True)
class _TimedEngine(Engine[Any]):
    """An engine that records the start and the end of each call."""

    engine: Engine[Any]
    clock: Clock
    spans: list[tuple[float, float]] = field(default_factory=list)

    def prefill(
        self,
        prompt_ids: Sequence[int],
        next_tokens: npt.ArrayLike,
        first_step: FirstStep | None = None,
    ) -> tuple[Any, RankedTokens]:
        start = self.clock()
        answer = self.engine.prefill(prompt_ids, next_tokens, first_step)
        self.spans = [(start, self.clock())]
        return answer

    def extend(
        self,
        state: Any,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        start = self.clock()
        answer = self.engine.extend(state, token_ids, parents, rows, next_tokens, keep=keep)
        self.spans.append((start, self.clock()))
        return answer

    def most_tokens(self, state: Any) -> int:
        return self.engine.most_tokens(state)


def measure_search(
    name: str,
    engine: Engine[Any],
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    settings: SearchSettings,
    top_k: int,
    clock: str = "elapsed",
) -> dict[str, Any]:
    """Return a row of ``adprior bench search``; the first `WARM_UP` prompts are not counted."""
    timed = _TimedEngine(engine, CLOCKS[clock])
    label = f"{name} {settings.mode} {len(trie.leaf_nodes)}"
    prefill, search, root, steps, tokens, exact = [], [], [], [], [], []
    for prompt in tqdm(prompts, unit="search", desc=label, leave=False):
        prefill.append(time_call(clock, read_prompt, engine, trie, prompt)[1])
        found, elapsed = time_call(
            clock,
            lambda p: TrieSearch(timed, trie, read_prompt(timed, trie, p), settings).run(top_k),
            prompt,
        )
        search.append(elapsed)
        gaps = [1e3 * (b[0] - a[1]) for a, b in zip(timed.spans, timed.spans[1:], strict=False)]
        root += gaps[:1]
        steps += gaps[1:]
        tokens.append(found.extended_tokens)
        exact.append(found.exact)
    times = summarise("prefill_ms", prefill) | summarise("search_ms", search)
    extended, prompt_tokens = float(np.mean(tokens)), float(np.mean([len(p) for p in prompts]))
    over_prefill = times["search_ms"] / times["prefill_ms"]
    return make_row(
        model=name,
        mode=str(settings.mode),
        catalogue_size=len(trie.leaf_nodes),
        prompt_tokens=prompt_tokens,
        beam_width=settings.width,
        top_k=top_k,
        **times,
        search_over_prefill=over_prefill,
        extended_tokens=extended,
        work_ratio=over_prefill / (1 + extended / prompt_tokens),
        select_ms_per_step=float(np.median(steps)) if steps else None,
        root_select_ms=float(np.median(root)),
        exact_fraction=float(np.mean(exact)),
        clock=clock,
    )


def measure_candidates(
    name: str,
    engine: Engine[Any],
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    settings: SearchSettings,
    candidates: int,
    clock: str = "elapsed",
) -> dict[str, Any]:
    """Time the scoring of random candidates after a search, and the prefills; return a row."""
    settings = replace(settings, mode=SearchMode.BEAM, candidate_token_budget=1_000_000)
    random = np.random.default_rng(11)
    advertisers = len(trie.leaf_offsets) - 1
    scoring, prefill, tokens = [], [], []
    for prompt in tqdm(prompts, unit="search", desc="candidates", leave=False):
        prefilled, elapsed = time_call(clock, read_prompt, engine, trie, prompt)
        prefill.append(elapsed)
        search = TrieSearch(engine, trie, prefilled, settings)
        search.run(settings.width)
        rows = random.choice(advertisers, min(candidates, advertisers), replace=False)
        scores, elapsed = time_call(clock, search.score, rows)
        scoring.append(elapsed)
        tokens.append(scores.extended_tokens)
    row = summarise("prefill_ms", prefill) | summarise("search_ms", scoring)
    extended, prompt_tokens = float(np.mean(tokens)), float(np.mean([len(p) for p in prompts]))
    over_prefill = row["search_ms"] / row["prefill_ms"]
    return make_row(
        model=name,
        mode=f"score {candidates} candidates",
        catalogue_size=len(trie.leaf_nodes),
        prompt_tokens=prompt_tokens,
        beam_width=settings.width,
        top_k=settings.width,
        **row,
        search_over_prefill=over_prefill,
        extended_tokens=extended,
        work_ratio=over_prefill * prompt_tokens / extended if extended else None,
        clock=clock,
    )


def time_call(
    clock: str,
    call: Callable[_Arguments, _Answer],
    *args: _Arguments.args,
    **kwargs: _Arguments.kwargs,
) -> tuple[_Answer, float]:
    """Return a call's result and its milliseconds by one of `CLOCKS`."""
    start = CLOCKS[clock]()
    answer = call(*args, **kwargs)
    return answer, 1e3 * (CLOCKS[clock]() - start)
