"""The search with a random model: catalogues of any size, the peer, precisions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from adprior_bench.search.memory import measure_memory
from adprior_bench.search.rows import (
    WARM_UP,
    measure_candidates,
    measure_search,
    summarise,
    time_call,
)
from adprior_bench.search.synthetic import (
    END_ID,
    MODELS,
    PROMPT_TOKENS,
    VOCABULARY,
    random_catalogue,
    synthetic_model,
    write_graph,
)
from adprior_bench.search.transformers_generate import generate_names
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

_PEER = "transformers.generate"
_TOLERANCE = 1e-3
_TOKEN_BUDGET = 640
"""Budget of exact searches: four times the tokens of a beam of 32 for names of 4 to 6 tokens."""


def measure_synthetic(args: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Measure a random model, its graphs in ``directory``, on random catalogues."""
    model = synthetic_model(args.model)

    def load(precision: str) -> OnnxEngine:
        path = write_graph(model, directory / f"{precision}.onnx", precision)
        return OnnxEngine(path, threads=args.threads)

    engine, path = load("fp32"), directory / "fp32.onnx"
    random = np.random.default_rng(7)
    count = args.rounds + WARM_UP
    length = args.prompt_tokens or PROMPT_TOKENS
    prompts = random.integers(3, VOCABULARY, (count, length)).tolist()
    rows = []
    settings = _settings(args, SearchMode.BEAM)
    for size in sorted(args.sizes):
        trie = random_catalogue(size)
        beam = _measure(args, engine, trie, prompts, SearchMode.BEAM)
        rows += [beam, _measure(args, engine, trie, prompts, SearchMode.EXACT)]
        if size == min(args.sizes) and args.peer_rounds > 0:
            rows.append(_measure_peer(args, model, engine, trie, prompts, beam))
        name, count = MODELS[args.model], args.candidates
        rows.append(measure_candidates(name, engine, trie, prompts, settings, count, args.clock))
        if args.device == "cpu":
            again = partial(OnnxEngine, path, threads=args.threads)
            size_bytes = path.stat().st_size
            beam |= measure_memory(again, size_bytes, trie, prompts[0], settings, count)
    trie = random_catalogue(min(args.sizes))
    for precision in args.precisions:
        quantised = load(precision)
        row = _measure(args, quantised, trie, prompts, SearchMode.BEAM)
        rows.append(row | {"precision": precision} | _difference(engine, quantised, prompts))
    return rows


def _difference(
    engine: OnnxEngine, other: OnnxEngine, prompts: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the largest difference in log-probability over the whole vocabulary."""
    everything = np.arange(VOCABULARY)
    differences = []
    for prompt in prompts[:8]:
        own, theirs = (each.prefill(prompt, everything)[1].read_all() for each in (engine, other))
        differences.append(float(np.abs(own - theirs).max()))
    return {"log_prob_difference": float(np.max(differences))}  # NaN where one is


def _measure_peer(
    args: argparse.Namespace,
    model: Any,
    engine: OnnxEngine,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    beam: dict[str, Any],
) -> dict[str, Any]:
    """Compare ``transformers.generate`` with the beam search, and check that their scores agree."""
    import torch  # noqa: PLC0415  heavy

    torch.set_num_threads(args.threads)
    settings = SearchSettings(mode=SearchMode.BEAM, width=args.width)
    times = []
    chosen = prompts[: WARM_UP + args.peer_rounds]
    for prompt in tqdm(chosen, unit="search", desc=_PEER, leave=False):
        theirs, elapsed = time_call(
            "elapsed", generate_names, model, prompt, trie, args.width, END_ID
        )
        times.append(elapsed)
        _compare(theirs, engine, trie, prompt, settings)
    row = beam | {"peer": _PEER} | summarise("peer_ms", times)
    return row | {"peer_over_search": row["peer_ms"] / beam["search_ms"]}


def _compare(
    theirs: Sequence[tuple[float, list[int]]],
    engine: OnnxEngine,
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
) -> None:
    """Refuse a peer that scores a name differently, or finds better names."""
    search = TrieSearch(engine, trie, read_prompt(engine, trie, prompt), settings)
    log_probs = search.run(settings.width).log_probs
    rows = [trie.lookup(path) for _, path in theirs]
    scores = search.score(np.array(rows)).log_probs
    difference = float(np.abs(np.array([score for score, _ in theirs]) - scores).max())
    kth = min(settings.width, len(theirs)) - 1
    # Both written so that NaN fails.
    if not (difference <= _TOLERANCE and log_probs[kth] >= theirs[kth][0] - _TOLERANCE):
        raise AdpriorError(
            f"{_PEER}: scores differ by {difference:.1e}; its name {kth + 1} has "
            f"{theirs[kth][0]:.4f}, the search's {log_probs[kth]:.4f}"
        )


def _measure(
    args: argparse.Namespace,
    engine: OnnxEngine,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    mode: SearchMode,
) -> dict[str, Any]:
    settings, name = _settings(args, mode), MODELS[args.model]
    return measure_search(name, engine, trie, prompts, settings, args.width, args.clock)


def _settings(args: argparse.Namespace, mode: SearchMode) -> SearchSettings:
    return SearchSettings(mode=mode, width=args.width, token_budget=_TOKEN_BUDGET)
