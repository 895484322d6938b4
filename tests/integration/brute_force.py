"""Scores of every name of a catalogue by transformers, to compare the search with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from transformers import LlamaConfig, LlamaForCausalLM

_BATCH = 512


def name_log_probs(
    model: Any, prompt_ids: Sequence[int], paths: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Return the log-probability of each token path after a prompt, by teacher forcing."""
    by_length: dict[int, list[int]] = {}
    for index, path in enumerate(paths):
        by_length.setdefault(len(path), []).append(index)
    total = np.zeros(len(paths))
    with torch.no_grad():
        prompt = model(torch.tensor([list(prompt_ids)]), use_cache=True)
        first = torch.log_softmax(prompt.logits[0, -1].double(), dim=-1).numpy()
        for length, indices in by_length.items():
            for start in range(0, len(indices), _BATCH):
                part = indices[start : start + _BATCH]
                names = torch.tensor([list(paths[index]) for index in part])
                total[part] = first[names[:, 0].numpy()]
                if length == 1:
                    continue
                cache = copy.deepcopy(prompt.cache)
                cache.batch_repeat_interleave(len(part))
                logits = model(names[:, :-1], cache=cache).logits
                log_probs = torch.log_softmax(logits.double(), dim=-1)
                rest = log_probs.gather(2, names[:, 1:, None])[:, :, 0]
                total[part] += rest.sum(dim=1).numpy()
    return total


def rebuild_llama(path: Path, size: Mapping[str, int]) -> Any:
    """Rebuild a model from its ONNX graph, whose nodes use the weights in the model's order.

    Args:
        path: The graph of a Llama, by `adprior_build.repository.onnx_export`.
        size: The values of its size file.
    """
    graph = onnx.load(str(path)).graph
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for name in [name for name in weights if name.endswith(".half")]:
        weights[name.removesuffix(".half")] = weights.pop(name).astype(np.float32)
    linear = [
        weights[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    vocabulary = len(weights["model.lm_head.weight"])
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=size["hidden_size"],
            intermediate_size=size["intermediate_size"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["attention_heads"],
            num_key_value_heads=size["key_value_heads"],
            vocab_size=vocabulary,
            max_position_embeddings=2 * size["max_prompt_tokens"],
            tie_word_embeddings=True,
        )
    )
    state = {
        name.removeprefix("model."): torch.tensor(value)
        for name, value in weights.items()
        if name.startswith("model.") and "inv_freq" not in name
    }
    state["model.embed_tokens.weight"] = state["lm_head.weight"]
    parts = ("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj")
    names = [
        f"model.layers.{layer}.{'mlp' if group is parts[2] else 'self_attn'}.{part}.weight"
        for layer in range(size["layers"])
        for group in parts
        for part in group
    ]
    state |= {n: torch.tensor(w.copy()) for n, w in zip(names, linear, strict=False)}
    model.load_state_dict(state)
    return model.eval()
