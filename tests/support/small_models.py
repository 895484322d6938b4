"""Minimal random models of several families, and their ONNX graphs, each exported once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from adprior_build.repository.onnx_export import export_onnx
from adprior_build.repository.onnx_parity import Parity
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
    return _seeded(seed, transformers.LlamaForCausalLM, transformers.LlamaConfig(**SIZES))


def small_qwen3(seed: int = 0) -> Any:
    config = transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True)
    return _seeded(seed, transformers.Qwen3ForCausalLM, config)


def small_mistral(seed: int = 0, sliding_window: int | None = None) -> Any:
    config = transformers.MistralConfig(**SIZES, sliding_window=sliding_window)
    return _seeded(seed, transformers.MistralForCausalLM, config)


def small_gemma3(seed: int = 0) -> Any:
    config = transformers.Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=MAX_POSITIONS)
    return _seeded(seed, transformers.Gemma3ForCausalLM, config)


def _seeded(seed: int, kind: Any, config: Any) -> Any:
    torch.manual_seed(seed)
    return kind(config).eval()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model, its graph, and an engine that runs it."""

    model: Any
    path: Path
    engine: OnnxEngine
    parity: Parity

    def expected(self, token_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the next token's log-probabilities by a plain forward pass."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(token_ids)])).logits[0, -1]
        found: npt.NDArray[np.float32] = torch.log_softmax(logits, dim=-1).numpy()
        return found


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Any]], Exported]:
    """Export each model once."""

    @cache
    def export_once(make: Callable[[], Any]) -> Exported:
        model, path = make(), tmp_path_factory.mktemp("exported") / "model.onnx"
        parity = export_onnx(model, path, name="small")
        return Exported(model=model, path=path, engine=OnnxEngine(path, threads=1), parity=parity)

    return export_once
