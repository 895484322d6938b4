"""The peer vLLM on a CPU: beams over the whole vocabulary, without compiling its graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

_BLOCK_TOKENS = 32
"""A step of its beam search submits every beam anew; it reuses the cache of whole blocks."""


def load(job: dict[str, Any]) -> Callable[[Sequence[int]], list[tuple[float, list[int]]]]:
    """Return the search of a checkpoint, see `worker`."""
    os.environ |= {
        "OMP_NUM_THREADS": str(job["threads"]),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    from vllm import LLM  # noqa: PLC0415  reads the environment
    from vllm.sampling_params import BeamSearchParams  # noqa: PLC0415

    width = job["width"]
    model = LLM(
        model=job["checkpoint"],
        dtype="float32",
        max_model_len=job["max_tokens"],
        max_num_seqs=width,
        max_logprobs=2 * width,
        block_size=_BLOCK_TOKENS,
        enable_prefix_caching=True,
        enforce_eager=True,
    )
    options = BeamSearchParams(
        beam_width=width, max_tokens=job["max_new_tokens"], length_penalty=0.0
    )

    def search(prompt: Sequence[int]) -> list[tuple[float, list[int]]]:
        (output,) = model.beam_search([{"prompt_token_ids": list(prompt)}], options)
        return [(beam.cum_logprob, beam.tokens[len(prompt) :]) for beam in output.sequences]

    return search
