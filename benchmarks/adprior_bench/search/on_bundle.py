"""The search with a bundle's model and catalogue, for its test users."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from adprior_bench.data.cases import read_test_cases
from adprior_bench.data.log_origin import require_training_log
from adprior_bench.search.memory import measure_memory
from adprior_bench.search.rows import WARM_UP, measure_candidates, measure_search
from adprior_runtime.bundle import (
    ONNX_MODEL_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.registry import ENGINES, ONNX
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.search.settings import SearchMode, SearchSettings

_BUDGET_FACTOR = 4


def measure_bundle(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure both modes and candidates; exact mode's budget is four times the beam's tokens.

    Raises:
        InvalidInputError: The event log is missing, or has no test users.
    """
    bundle = Bundle.open(args.bundle)
    origin = require_training_log(
        bundle.manifest, args.events, args.profiles, args.columns, other_log=args.other_log
    )
    kind = bundle.manifest.engine
    if (load := ENGINES[kind].loader) is None:
        raise InvalidInputError(f"{args.bundle}: engine {kind} does not search in this process")
    engine = load(bundle, threads=args.threads, device=args.device)
    trie = Trie.load(bundle.path(TRIE_DIRECTORY))
    prompts = read_test_prompts(args, bundle, args.rounds + WARM_UP)
    name, rows, budget = f"bundle {bundle.manifest.bundle_id}", [], 1
    own = SearchSettings.of(bundle.manifest)
    if origin.is_other:
        name += ", users of another log"
    for mode in (SearchMode.BEAM, SearchMode.EXACT):
        settings = replace(own, mode=mode, width=args.width, token_budget=budget)
        rows.append(measure_search(name, engine, trie, prompts, settings, args.top_k, args.clock))
        budget = int(_BUDGET_FACTOR * rows[-1]["extended_tokens"])
    if kind == ONNX.name and args.device == "cpu":
        again = partial(OnnxEngine.of_bundle, bundle, threads=args.threads)
        size_bytes = bundle.path(ONNX_MODEL_FILE).stat().st_size
        settings = replace(own, width=args.width)
        rows[-1] |= measure_memory(again, size_bytes, trie, prompts[0], settings, args.candidates)
    settings = replace(own, width=args.width)
    rows.append(
        measure_candidates(name, engine, trie, prompts, settings, args.candidates, args.clock)
    )
    return [row | {"engine": kind, "precision": bundle.manifest.precision} for row in rows]


def read_test_prompts(args: argparse.Namespace, bundle: Bundle, count: int) -> list[list[int]]:
    """Return at most ``count`` prompts of random test users and days after the training cut.

    If a number of tokens is asked for, the template's budget is that, and shorter prompts are left
    out.
    """
    cases = read_test_cases(bundle, args.events, args.profiles, args.columns)
    renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
    order = np.random.default_rng(7).permutation(len(cases))
    if (budget := args.prompt_tokens) is None:
        chosen = order[:count]
        return [renderer.render(cases[index]).token_ids for index in chosen]
    renderer.template = replace(renderer.template, max_prompt_tokens=budget)
    rendered = (renderer.render(cases[index]) for index in order)
    full = (prompt.token_ids for prompt in rendered if prompt.dropped_events)
    prompts = list(itertools.islice(full, count))
    if len(prompts) < count:
        raise InvalidInputError(
            f"--prompt-tokens {budget}: {len(prompts)} test users and days have longer prompts, "
            f"expected {count}"
        )
    return prompts
