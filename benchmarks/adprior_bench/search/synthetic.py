"""Random models and catalogues of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.architecture import OUTPUT

LLAMA, GEMMA = "llama-14m", "gemma3-270m"
MODELS = {LLAMA: "synthetic 14M", GEMMA: "synthetic Gemma 3 270M"}
"""The models, by the option ``--model``, and their names in rows. Gemma has its 262,144 tokens."""

VOCABULARY = 8192
"""Names and prompts have tokens below this."""

END_ID = 1

_FIRST_WORD = 3
_SHORTEST, _LONGEST = 4, 6


def synthetic_model(name: str, seed: int = 0) -> Any:
    """Return a model of transformers with random weights.

    Args:
        name: One of `MODELS`.
        seed: The seed of the weights.
    """
    import torch  # noqa: PLC0415  heavy
    import transformers  # noqa: PLC0415  heavy

    ends = {"bos_token_id": None, "eos_token_id": END_ID, "pad_token_id": 0}
    if name == GEMMA:
        config: Any = transformers.Gemma3TextConfig(
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            vocab_size=262_144,
            sliding_window=512,
            max_position_embeddings=32_768,
            query_pre_attn_scalar=256,
            **ends,
        )
    else:
        config = transformers.LlamaConfig(
            hidden_size=384,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            **ends,
        )
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def write_graph(model: Any, path: Path, precision: str) -> Path:
    """Write a model of transformers as an ONNX graph, in one of `PRECISIONS`; return the path."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop(OUTPUT, None)  # repeats the embeddings
    write_model(model.config.to_dict(), weights, path, precision=precision)
    return path


def random_catalogue(size: int, seed: int = 1) -> Trie:
    """Return ``size`` different names of 4 to 6 random tokens and the terminator."""
    random = np.random.default_rng(seed)
    tokens = random.integers(_FIRST_WORD, VOCABULARY, size=(2 * size, _LONGEST), dtype=np.int32)
    lengths = random.integers(_SHORTEST, _LONGEST + 1, size=2 * size)
    tokens[np.arange(_LONGEST) >= lengths[:, None]] = 0
    distinct: npt.NDArray[np.int32] = np.unique(tokens, axis=0)
    chosen = random.permutation(len(distinct))[:size]
    paths = [[*row[row > 0].tolist(), END_ID] for row in distinct[chosen]]
    return Trie.build(paths, np.arange(size))
