"""The rows of the search benchmark, and their measurement: prefills and searches in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine, LogProbs
from adprior_runtime.search.search import SearchSettings, TrieSearch
from adprior_runtime.search.tree import read_prompt

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

WARM_UP = 4
"""Measurements that are discarded first."""

ROW_KEYS = (
    "model", "engine", "precision", "mode", "catalogue_size", "prompt_tokens", "beam_width",
    "top_k", "prefill_ms", "prefill_ms_quartiles", "prefill_tokens", "search_ms",
    "search_ms_quartiles", "search_over_prefill", "extended_tokens", "work_ratio", "peer",
    "peer_ms", "peer_ms_quartiles", "peer_over_search", "select_ms_per_step", "root_select_ms",
    "exact_fraction", "log_prob_difference", "rss_mb",
)  # fmt: skip
"""The keys of every row; a value is null where it does not apply. ``prefill_tokens`` counts the
tokens of the prefill that ``search_ms`` is compared with: the prompt, or the scored candidates."""


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
    spans: list[tuple[float, float]] = field(default_factory=list)

    def prefill(
        self, prompt_ids: Sequence[int], next_tokens: npt.ArrayLike
    ) -> tuple[Any, LogProbs]:
        start = time.perf_counter()
        answer = self.engine.prefill(prompt_ids, next_tokens)
        self.spans = [(start, time.perf_counter())]
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
        start = time.perf_counter()
        answer = self.engine.extend(state, token_ids, parents, rows, next_tokens, keep=keep)
        self.spans.append((start, time.perf_counter()))
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
) -> dict[str, Any]:
    """Return a row of ``adprior bench search``; the first `WARM_UP` prompts are not counted."""
    timed = _TimedEngine(engine)
    label = f"{name} {settings.mode} {len(trie.leaf_nodes)}"
    prefill, search, root, steps, tokens, exact = [], [], [], [], [], []
    for prompt in tqdm(prompts, unit="search", desc=label, leave=False):
        prefill.append(time_call(read_prompt, engine, trie, prompt)[1])
        found, elapsed = time_call(
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
        prefill_tokens=prompt_tokens,
        search_over_prefill=over_prefill,
        extended_tokens=extended,
        work_ratio=over_prefill / (1 + extended / prompt_tokens),
        select_ms_per_step=float(np.median(steps)) if steps else None,
        root_select_ms=float(np.median(root)),
        exact_fraction=float(np.mean(exact)),
    )


def time_call(
    call: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> tuple[_Answer, float]:
    """Return a call's result and its milliseconds."""
    start = time.perf_counter()
    answer = call(*args, **kwargs)
    return answer, 1e3 * (time.perf_counter() - start)
