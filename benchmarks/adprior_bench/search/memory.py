"""The memory of one request, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt

_RESETS_PEAK = "5"
_STATUS = Path("/proc/self/status")


def measure_memory(
    load: Callable[[], OnnxEngine],
    weights_bytes: int,
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
    candidates: int,
) -> dict[str, float]:
    """Return items of a row: the memory of one search that also scores random candidates.

    Memory counts from before the model is loaded, so the interpreter and its libraries are left
    out. A second request is measured: the first one grows ONNX Runtime's arena.

    Args:
        load: Loads the engine; the other process calls it.
        weights_bytes: Size of the model.
        trie: The catalogue.
        prompt: Token ids.
        settings: How to search.
        candidates: How many candidates to score.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        peak, loaded, cache = process.submit(
            _request, load, trie, prompt, settings, candidates
        ).result()
    return {
        "loaded_mb": loaded / 2**20,
        "peak_mb": peak / 2**20,
        "weights_mb": weights_bytes / 2**20,
        "cache_mb": cache / 2**20,
        "peak_over_weights_and_cache": peak / (weights_bytes + cache),
    }


def _request(
    load: Callable[[], OnnxEngine],
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
    candidates: int,
) -> tuple[int, int, int]:
    """Return bytes: the largest during a request, those of the loaded model, the KV cache's."""
    before = _resident("VmRSS")
    engine = load()
    loaded = _resident("VmRSS")
    random = np.random.default_rng(11)
    count = min(candidates, len(trie.leaf_offsets) - 1)
    rows = random.choice(len(trie.leaf_offsets) - 1, count, replace=False)
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text(_RESETS_PEAK, encoding="ascii")
        prefilled = read_prompt(engine, trie, prompt)
        search = TrieSearch(engine, trie, prefilled, settings)
        search.run(settings.width)
        search.score(rows)
    return _resident("VmHWM") - before, loaded - before, prefilled[0].cache.nbytes


def _resident(name: str) -> int:
    """Return bytes of this process that are in memory: ``VmRSS``, or their peak, ``VmHWM``."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(found[1]) * 1024
