"""What ``adprior bench search`` measures: one function a kind of row."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import psutil
from tqdm import tqdm

from adprior_bench.first_engine import plain_beam_search
from adprior_bench.generate_peer import generate_names
from adprior_bench.synthetic import (
    END_ID,
    VOCABULARY,
    quantised_copy,
    random_catalogue,
    synthetic_llama,
)
from adprior_runtime.bundle import ONNX_MODEL_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue import Advertisers
from adprior_runtime.engines.base import ROOT, Engine, LogProbs
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.search import SearchMode, SearchResult, SearchSettings, TrieSearch
from adprior_runtime.trie import Trie

__all__ = ["measure_bundle", "measure_synthetic"]

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_WARM_UP = 4
_TOLERANCE = 1e-3
_TOKEN_BUDGET = 640
"""Of exact searches: four times what a beam of 32 extends for names of 4 to 6 tokens."""


@dataclass(slots=True)
class _TimedEngine(Engine[Any]):
    """An engine, with the times at which it was entered and left."""

    engine: OnnxEngine
    spans: list[tuple[float, float]] = field(default_factory=list)

    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Any, LogProbs]:
        start = time.perf_counter()
        answer = self.engine.prefill(prompt_ids)
        self.spans = [(start, time.perf_counter())]
        return answer

    def extend(
        self, state: Any, token_ids: npt.ArrayLike, parents: npt.ArrayLike, *, keep: bool = True
    ) -> LogProbs:
        start = time.perf_counter()
        answer = self.engine.extend(state, token_ids, parents, keep=keep)
        self.spans.append((start, time.perf_counter()))
        return answer


def measure_synthetic(args: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Measure a random Llama on random catalogues; its graph goes into ``directory``."""
    model, path = synthetic_llama(directory)
    engine = OnnxEngine(path, threads=args.threads)
    random = np.random.default_rng(7)
    count = args.rounds + _WARM_UP
    prompts = random.integers(3, VOCABULARY, (count, args.prompt_tokens)).tolist()
    rows = []
    for size in sorted(args.sizes):
        trie = random_catalogue(size)
        for mode in SearchMode:
            row = _measure(args, "synthetic 14M", engine, trie, prompts, mode)
            rows.append(row)
        if size == min(args.sizes) and args.peer_rounds > 0:
            beam = rows[-len(SearchMode)]
            rows += [
                beam | peer for peer in _measure_peers(args, model, engine, trie, prompts, beam)
            ]
        rows.append(_measure_candidates(args, engine, trie, prompts))
    trie = random_catalogue(min(args.sizes))
    rows += _measure_passes(args, engine, prompts)
    for precision in args.precisions:
        quantised = OnnxEngine(quantised_copy(path, precision), threads=args.threads)
        row = _measure(args, "synthetic 14M", quantised, trie, prompts, SearchMode.BEAM)
        rows.append(row | {"precision": precision} | _difference(engine, quantised, prompts))
    return rows


def _measure_passes(
    args: argparse.Namespace, engine: OnnxEngine, prompts: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Time one pass of so many tokens after a prompt: what packing more of them together saves."""
    rows = []
    for count in (1, 8, 32, 128, 512):
        times, prefill = [], []
        for prompt in prompts:
            (state, _), elapsed = _time(engine.prefill, prompt)
            prefill.append(elapsed)
            tokens = np.resize(np.array(prompt), count)
            parents = np.full(count, ROOT)
            times.append(_time(engine.extend, state, tokens, parents, keep=False)[1])
        pass_ms, prefill_ms = np.median(times[_WARM_UP:]), np.median(prefill[_WARM_UP:])
        rows.append(
            {
                "model": "synthetic 14M",
                "mode": f"one pass of {count}",
                "prompt_tokens": args.prompt_tokens,
                "prefill_ms": prefill_ms,
                "search_ms": pass_ms,
                "search_over_prefill": pass_ms / prefill_ms,
                "extended_tokens": float(count),
            }
        )
    return rows


def _difference(
    engine: OnnxEngine, other: OnnxEngine, prompts: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the largest difference in log-probability over the whole vocabulary."""
    differences = [
        float(np.abs(engine.prefill(prompt)[1] - other.prefill(prompt)[1]).max())
        for prompt in prompts[:8]
    ]
    return {"log_prob_difference": max(differences)}


def measure_bundle(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a bundle on prompts of its advertisers' names, drawn by popularity."""
    bundle = Bundle.open(args.bundle)
    engine = OnnxEngine(
        bundle.path(ONNX_MODEL_FILE),
        threads=args.threads,
        head_ids=bundle.manifest.prompt_head_ids,
    )
    trie = Trie.load(bundle.path(TRIE_DIRECTORY))
    advertisers = Advertisers.load(bundle.path("advertisers"))
    share = np.exp(advertisers.log_popularity.astype(np.float64))
    random = np.random.default_rng(7)
    prompts = []
    for _ in range(args.rounds + _WARM_UP):
        prompt = list(bundle.manifest.prompt_head_ids)
        while len(prompt) < args.prompt_tokens:
            row = int(random.choice(len(share), p=share / share.sum()))
            tokens, lengths = trie.paths(trie.leaves_of([row])[0][:1])
            prompt += tokens[0, : lengths[0]].tolist()
        prompts.append(prompt[: args.prompt_tokens])
    name = f"bundle {bundle.bundle_id}"
    return [_measure(args, name, engine, trie, prompts, mode) for mode in SearchMode]


def _measure(
    args: argparse.Namespace,
    name: str,
    engine: OnnxEngine,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    mode: SearchMode,
) -> dict[str, Any]:
    """Alternate prefills and searches of the same prompts."""
    timed = _TimedEngine(engine)
    settings = SearchSettings(mode=mode, width=args.width, token_budget=_TOKEN_BUDGET)
    prefill, search, root, steps, tokens, exact = [], [], [], [], [], []
    for prompt in tqdm(prompts, unit="search", desc=f"{name} {mode} {_paths(trie)}", leave=False):
        prefill.append(_time(engine.prefill, prompt)[1])
        found, elapsed = _time(_search, timed, trie, prompt, settings, args.width)
        search.append(elapsed)
        gaps = [1e3 * (b[0] - a[1]) for a, b in zip(timed.spans, timed.spans[1:], strict=False)]
        root += gaps[:1]
        steps += gaps[1:]
        tokens.append(found.extended_tokens)
        exact.append(found.exact)
    prefill_ms, search_ms = np.median(prefill[_WARM_UP:]), np.median(search[_WARM_UP:])
    extended = float(np.mean(tokens))
    return {
        "model": name,
        "engine": "onnx",
        "precision": "fp32",
        "mode": str(mode),
        "catalogue_size": _paths(trie),
        "prompt_tokens": args.prompt_tokens,
        "beam_width": args.width,
        "prefill_ms": prefill_ms,
        "prefill_ms_quartiles": _quartiles(prefill),
        "search_ms": search_ms,
        "search_ms_quartiles": _quartiles(search),
        "search_over_prefill": search_ms / prefill_ms,
        "extended_tokens": extended,
        "work_ratio": search_ms / (prefill_ms * (1 + extended / args.prompt_tokens)),
        "peer": None,
        "peer_ms": None,
        "peer_over_search": None,
        "select_ms_per_step": float(np.median(steps)) if steps else None,
        "root_select_ms": float(np.median(root)),
        "exact_fraction": float(np.mean(exact)),
        "rss_mb": psutil.Process().memory_info().rss / 2**20,
    }


def _measure_peers(
    args: argparse.Namespace,
    model: Any,
    engine: OnnxEngine,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    beam: dict[str, Any],
) -> list[dict[str, Any]]:
    """Time the peers, and check that what they find scores the same here."""
    import torch  # noqa: PLC0415  heavy

    torch.set_num_threads(args.threads)
    peers: dict[str, Callable[[Sequence[int]], list[tuple[float, list[int]]]]] = {
        "plain beam search": lambda p: plain_beam_search(engine, p, trie, args.width),
        "transformers.generate": lambda p: generate_names(model, p, trie, args.width, END_ID),
    }
    settings = SearchSettings(mode=SearchMode.BEAM, width=args.width)
    rows = []
    for name, peer in peers.items():
        times = []
        for prompt in tqdm(prompts[: args.peer_rounds], unit="search", desc=name, leave=False):
            theirs, elapsed = _time(peer, prompt)
            times.append(elapsed)
            _compare(name, theirs, engine, trie, prompt, settings)
        peer_ms = float(np.median(times))
        rows.append(
            {"peer": name, "peer_ms": peer_ms, "peer_over_search": peer_ms / beam["search_ms"]}
        )
    return rows


def _compare(
    name: str,
    theirs: Sequence[tuple[float, list[int]]],
    engine: OnnxEngine,
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
) -> None:
    """Refuse to compare with a peer that scores a name otherwise, or that finds better ones."""
    search = TrieSearch(engine, trie, prompt, settings)
    ours = search.run(settings.width).log_probs
    rows = [trie.lookup(path) for _, path in theirs]
    scores = search.score(np.array(rows)).log_probs
    difference = max(abs(score - own) for (score, _), own in zip(theirs, scores, strict=True))
    kth = min(settings.width, len(theirs)) - 1
    if difference > _TOLERANCE or ours[kth] < theirs[kth][0] - _TOLERANCE:
        raise AdpriorError(
            f"{name}: scores differ by {difference:.1e}, its {kth + 1}th name has "
            f"{theirs[kth][0]:.4f}, ours {ours[kth]:.4f}"
        )


def _measure_candidates(
    args: argparse.Namespace, engine: OnnxEngine, trie: Trie, prompts: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Time the scoring of random candidates after a beam search, and a prefill of their tokens."""
    settings = SearchSettings(
        mode=SearchMode.BEAM, width=args.width, candidate_token_budget=1_000_000
    )
    random = np.random.default_rng(11)
    scoring, prefill, tokens = [], [], []
    for prompt in tqdm(prompts, unit="search", desc="candidates", leave=False):
        search = TrieSearch(engine, trie, prompt, settings)
        search.run(args.width)
        count = min(args.candidates, _paths(trie))
        rows = random.choice(_paths(trie), count, replace=False)
        scores, elapsed = _time(search.score, rows)
        scoring.append(elapsed)
        tokens.append(scores.extended_tokens)
        of_as_many = random.integers(3, VOCABULARY, tokens[-1]).tolist()
        prefill.append(_time(engine.prefill, of_as_many)[1])
    score_ms, prefill_ms = np.median(scoring[_WARM_UP:]), np.median(prefill[_WARM_UP:])
    return {
        "model": "synthetic 14M",
        "mode": f"score {args.candidates} candidates",
        "catalogue_size": _paths(trie),
        "prompt_tokens": int(np.mean(tokens)),
        "prefill_ms": prefill_ms,
        "search_ms": score_ms,
        "search_over_prefill": score_ms / prefill_ms,
        "extended_tokens": float(np.mean(tokens)),
    }


def _search(
    engine: Engine[Any],
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
    top_k: int,
) -> SearchResult:
    return TrieSearch(engine, trie, prompt, settings).run(top_k)


def _time(
    call: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> tuple[_Answer, float]:
    """Return what a call gives, and the milliseconds it took."""
    start = time.perf_counter()
    answer = call(*args, **kwargs)
    return answer, 1e3 * (time.perf_counter() - start)


def _paths(trie: Trie) -> int:
    return len(trie.leaf_nodes)


def _quartiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.quantile(values[_WARM_UP:], [0.25, 0.75])]
