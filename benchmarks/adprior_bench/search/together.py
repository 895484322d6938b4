"""Many users' searches on the torch engine: at once, and one after another.

The floor is what the matrix products alone would take at the speed of one large product, measured
on the same device in the same run. The model's matrices are stored in bfloat16, as most published
ones are.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from adprior_bench.search.synthetic import (
    MODELS,
    PROMPT_TOKENS,
    VOCABULARY,
    random_catalogue,
    synthetic_model,
    weights_of,
)
from adprior_build.torch_model.write_model import write_torch_model
from adprior_runtime.bundle import ARCHITECTURE_FILE
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.architecture import Architecture, weight_shapes
from adprior_runtime.engines.pass_loop import PassLoop
from adprior_runtime.engines.registry import SINGLE_PRECISION
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.engines.torch_products import hold_matrix
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

_WIDE: Final = 4096
"""Rows and columns of the product that measures the device."""
_PRODUCTS: Final = 3
_WARM_UPS: Final = 3
"""Passes of sizes that come again are recorded the third time."""


def measure_together(args: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Return a row for each size of a synthetic catalogue and each number of users.

    Args:
        args: The command's.
        directory: A place for the model's files.
    """
    model = synthetic_model(args.model)
    write_torch_model(model.config.to_dict(), weights_of(model), directory, precision="bf16")
    del model
    chosen = args.products or [SINGLE_PRECISION]
    return [row for products in chosen for row in _rows(args, directory, products)]


def _rows(args: argparse.Namespace, directory: Path, products: str) -> list[dict[str, Any]]:
    """Return the rows of one form of products."""
    gc.collect()  # the engine before has cycles; the device may not hold both
    engine = TorchEngine(directory, threads=args.threads, device=args.device, products=products)
    of = Architecture.load(directory / ARCHITECTURE_FILE)
    speed = product_speed(engine.device, products)
    random = np.random.default_rng(7)
    length = args.prompt_tokens or PROMPT_TOKENS
    prompts = random.integers(3, VOCABULARY, (args.rounds, length)).tolist()
    settings = SearchSettings(mode=SearchMode.BEAM, width=args.width)
    rows: list[dict[str, Any]] = []
    for size in sorted(args.sizes):
        trie = random_catalogue(size, name_tokens=args.name_tokens)
        measure = partial(_measure, engine, trie, settings, args.top_k)
        for users in sorted({1, *args.together}):
            for _ in range(_WARM_UPS):
                measure(prompts[:users], users)
            row = {
                "model": MODELS[args.model],
                "device": args.device,
                "products": products,
                "product_tflops": speed / 1e12,
                "catalogue_size": size,
                "prompt_tokens": length,
                "beam_width": args.width,
                "users": users,
                **measure(prompts, users),
            }
            alone = rows[-1]["users_per_s"] / rows[-1]["over_alone"] if users > 1 else None
            floor = speed / operations(of, length, row["extended_tokens"])
            row["over_alone"] = row["users_per_s"] / (alone or row["users_per_s"])
            row["floor_users_per_s"] = floor
            row["share_of_floor"] = row["users_per_s"] / floor
            rows.append(row)
    return rows


def _measure(
    engine: TorchEngine,
    trie: Trie,
    settings: SearchSettings,
    top_k: int,
    prompts: Sequence[Sequence[int]],
    users: int,
) -> dict[str, Any]:
    """Search for every prompt, with ``users`` at once."""
    times: list[float] = []
    tokens: list[int] = []
    bar = tqdm(total=len(prompts), unit="user", desc=f"{users} at once", leave=False)

    def search(prompt: Sequence[int]) -> None:
        began = time.perf_counter()
        prefilled = read_prompt(engine, trie, prompt, settings.width)
        found = TrieSearch(engine, trie, prefilled, settings).run(top_k)
        times.append(1e3 * (time.perf_counter() - began))
        tokens.append(found.extended_tokens)
        bar.update()

    searches: list[Callable[[], None]] = [partial(search, prompt) for prompt in prompts]
    began, worked = time.perf_counter(), time.process_time()
    PassLoop().run(searches, most=users)
    took, work = time.perf_counter() - began, time.process_time() - worked
    bar.close()
    idle = _idle_share(engine.device, lambda: PassLoop().run(searches, most=users))
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return {
        "users_per_s": len(prompts) / took,
        "processor_ms_a_user": 1e3 * work / len(prompts),
        "user_ms": median,
        "user_ms_quartiles": [low, high],
        "extended_tokens": float(np.mean(tokens)),
        "device_idle": idle,
    }


def operations(of: Architecture, prompt: float, extended: float) -> float:
    """Return the floating-point operations of one search: two for each weight and token.

    Attention is left out. Logits are computed for the prompt's last token and the extended ones.

    Args:
        of: The model.
        prompt: Tokens of the prompt.
        extended: Tokens extended after it.
    """
    layers = sum(
        math.prod(shape)
        for name, shape in weight_shapes(of, ()).items()
        if ".layers." in name and len(shape) > 1
    )
    return 2 * (layers * (prompt + extended) + of.hidden * of.vocabulary * (1 + extended))


def product_speed(device: torch.device, products: str) -> float:
    """Return the floating-point operations a second of a large product.

    Args:
        device: Where it runs.
        products: How matrices are multiplied. A product in parts counts as one.
    """
    values = torch.ones((_WIDE, _WIDE), device=device)
    matrix = hold_matrix(values.bfloat16(), products)

    def seconds() -> float:
        _wait_for(device)
        began = time.perf_counter()
        matrix.product(values)
        _wait_for(device)
        return time.perf_counter() - began

    seconds()
    return 2 * _WIDE**3 / min(seconds() for _ in range(_PRODUCTS))


def _idle_share(device: torch.device, run: Callable[[], None]) -> float | None:
    """Return the share of a second run's time in which a GPU runs no kernel; None for a CPU."""
    if device.type == "cpu":
        return None
    began = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
    took = time.perf_counter() - began
    busy_us = sum(each.self_device_time_total for each in profile.key_averages())
    return 1 - float(busy_us) / 1e6 / took


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
