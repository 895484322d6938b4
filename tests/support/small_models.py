"""Minimal random models of every family, and their ONNX graphs, each written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.engines.onnx import OnnxEngine

VOCABULARY = 50
MAX_POSITIONS = 64
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": 0.5,  # far enough from uniform for a wrong mask to show
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def small_llama(seed: int = 0) -> Any:
    """A Llama 3.1: scaled rotation, and biases."""
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    return _seeded(
        seed,
        transformers.LlamaConfig(**SIZES, rope_parameters=rope, attention_bias=True, mlp_bias=True),
    )


def small_mistral(seed: int = 0, sliding_window: int | None = None) -> Any:
    return _seeded(seed, transformers.MistralConfig(**SIZES, sliding_window=sliding_window))


def small_qwen2(seed: int = 0) -> Any:
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    return _seeded(seed, transformers.Qwen2Config(**SIZES, rope_parameters=rope))


def small_qwen3(seed: int = 0) -> Any:
    return _seeded(seed, transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True))


def small_gemma(seed: int = 0) -> Any:
    return _seeded(seed, transformers.GemmaConfig(**SIZES, head_dim=16))


def small_gemma2(seed: int = 0) -> Any:
    """A Gemma 2: soft caps, and a window in every other layer."""
    return _seeded(
        seed,
        transformers.Gemma2Config(**SIZES, head_dim=16, sliding_window=8, query_pre_attn_scalar=24),
    )


def small_gemma3(seed: int = 0, sliding_window: int = 8) -> Any:
    """A Gemma 3: a window and a rotation of its own in one layer, a scaled one in the other."""
    ropes = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    }
    config = transformers.Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        sliding_window=sliding_window,
        query_pre_attn_scalar=24,
        layer_types=list(ropes),
        rope_parameters=ropes,
    )
    return _seeded(seed, config)


FAMILIES = (
    small_llama,
    small_mistral,
    small_qwen2,
    small_qwen3,
    small_gemma,
    small_gemma2,
    small_gemma3,
)


def _seeded(seed: int, config: Any) -> Any:
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:  # norms and biases, which begin as 1 or 0
                weights.add_(torch.randn_like(weights), alpha=0.3)
    return model


def weights_of(model: Any) -> Mapping[str, npt.NDArray[np.float32]]:
    """Return a model's weights, without an output matrix that repeats the embeddings."""
    tied = model.config.tie_word_embeddings
    return {
        name: tensor.numpy()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model, its graph, and an engine that runs it."""

    model: Any
    path: Path
    engine: OnnxEngine

    def expected(self, token_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the next token's log-probabilities by a plain forward pass."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(token_ids)])).logits[0, -1]
        found: npt.NDArray[np.float32] = torch.log_softmax(logits, dim=-1).numpy()
        return found


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Any]], Exported]:
    """Write each model's graph once."""

    @cache
    def export_once(make: Callable[[], Any]) -> Exported:
        model, path = make(), tmp_path_factory.mktemp("exported") / "model.onnx"
        write_model(model.config.to_dict(), weights_of(model), path)
        return Exported(model=model, path=path, engine=OnnxEngine(path, threads=1))

    return export_once
