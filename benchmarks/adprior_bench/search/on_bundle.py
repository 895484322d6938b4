"""The search with a bundle's model and catalogue, for its test users."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from adprior_bench.data.cases import read_test_cases
from adprior_bench.data.log_origin import require_training_log
from adprior_bench.search.rows import WARM_UP, measure_search
from adprior_runtime.bundle import (
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.search.search import SearchMode, SearchSettings

_BUDGET_FACTOR = 4


def measure_bundle(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure both modes; the exact one has a budget of four times the beam's tokens.

    Raises:
        InvalidInputError: The event log is missing, or has no test users.
    """
    if args.events is None or args.columns is None:
        raise InvalidInputError("--bundle needs --events and --columns, for its test users")
    bundle = Bundle.open(args.bundle)
    origin = require_training_log(
        bundle.manifest, args.events, args.profiles, args.columns, other_log=args.other_log
    )
    kind = bundle.manifest.engine
    if (load := ENGINES[kind].loader) is None:
        raise InvalidInputError(f"{args.bundle}: engine {kind} does not search in this process")
    engine = load(bundle, threads=args.threads, device=args.device)
    trie = Trie.load(bundle.path(TRIE_DIRECTORY))
    prompts = _prompts(args, bundle)
    name, rows, budget = f"bundle {bundle.manifest.bundle_id}", [], 1
    own = SearchSettings.of(bundle.manifest)
    if origin.is_other:
        name += ", users of another log"
    for mode in (SearchMode.BEAM, SearchMode.EXACT):
        settings = replace(own, mode=mode, width=args.width, token_budget=budget)
        row = measure_search(name, engine, trie, prompts, settings, args.top_k)
        rows.append(row | {"engine": kind, "precision": bundle.manifest.precision})
        budget = int(_BUDGET_FACTOR * rows[-1]["extended_tokens"])
    return rows


def _prompts(args: argparse.Namespace, bundle: Bundle) -> list[list[int]]:
    """Return prompts of random test users and days after the training cut."""
    cases = read_test_cases(bundle, args.events, args.profiles, args.columns)
    renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
    chosen = np.random.default_rng(7).permutation(len(cases))[: args.rounds + WARM_UP]
    return [renderer.render(cases[index]).token_ids for index in chosen]
