"""Random models and catalogues of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.architecture import OUTPUT

LLAMA, GEMMA, QWEN = "llama-14m", "gemma3-270m", "qwen3-1.7b"
MODELS = {LLAMA: "synthetic 14M", GEMMA: "synthetic Gemma 3 270M", QWEN: "synthetic Qwen3 1.7B"}
"""The models, by the option ``--model``, and their names in rows. Gemma has its 262,144 tokens and
Qwen its 151,936; its 6.9 GB fit the torch engine only."""

VOCABULARY = 8192
"""Names and prompts have tokens below this."""

PROMPT_TOKENS = 256
"""Tokens of a prompt, unless an option says otherwise."""

END_ID = 1

_FIRST_WORD = 3
_SHORTEST, _LONGEST = 4, 6


def synthetic_model(name: str, seed: int = 0) -> Any:
    """Return a model of transformers with random weights, in single precision.

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
    elif name == QWEN:
        config = transformers.Qwen3Config(
            hidden_size=2048,
            intermediate_size=6144,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=151_936,
            max_position_embeddings=40_960,
            tie_word_embeddings=True,
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
    write_model(model.config.to_dict(), weights_of(model), path, precision=precision)
    return path


def weights_of(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return a model's weights by their names."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop(OUTPUT, None)  # repeats the embeddings
    return weights


def random_catalogue(size: int, seed: int = 1, name_tokens: int | None = None) -> Trie:
    """Return different names of random tokens and the terminator.

    Args:
        size: How many.
        seed: The seed of the tokens.
        name_tokens: Tokens of each name without the terminator; None for 4 to 6.
    """
    random = np.random.default_rng(seed)
    shortest, longest = (name_tokens or _SHORTEST), (name_tokens or _LONGEST)
    tokens = random.integers(_FIRST_WORD, VOCABULARY, size=(2 * size, longest), dtype=np.int32)
    lengths = random.integers(shortest, longest + 1, size=2 * size)
    tokens[np.arange(longest) >= lengths[:, None]] = 0
    distinct: npt.NDArray[np.int32] = np.unique(tokens, axis=0)
    chosen = random.permutation(len(distinct))[:size]
    paths = [[*row[row > 0].tolist(), END_ID] for row in distinct[chosen]]
    return Trie.build(paths, np.arange(size))
