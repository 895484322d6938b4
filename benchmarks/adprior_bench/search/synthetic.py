"""Random models and catalogues of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.write_model import write_model
from adprior_runtime.catalogue.trie import Trie

VOCABULARY = 8192
END_ID = 1

_FIRST_WORD = 3
_SHORTEST, _LONGEST = 4, 6


def synthetic_llama(seed: int = 0) -> Any:
    """Return a random Llama of 14 M parameters."""
    import torch  # noqa: PLC0415  heavy
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  heavy

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=384,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=END_ID,
            pad_token_id=0,
        )
    ).eval()


def write_graph(model: Any, path: Path, precision: str) -> Path:
    """Write a model of transformers as an ONNX graph, in one of `PRECISIONS`; return the path."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
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
