"""The peer ``transformers.generate``: beams that its own hook keeps within the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from adprior_bench.search.transformers_generate import generate_names
from adprior_runtime.catalogue.trie import Trie


def load(job: dict[str, Any]) -> Callable[[Sequence[int]], list[tuple[float, list[int]]]]:
    """Return the search of a checkpoint, see `worker`."""
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["checkpoint"], dtype=torch.float32).eval()
    trie = Trie.load(Path(job["trie"]))
    return lambda prompt: generate_names(model, prompt, trie, job["width"], job["end_id"])
