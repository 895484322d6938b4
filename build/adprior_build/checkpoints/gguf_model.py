"""A GGUF file as a Hugging Face model: its configuration, and its tensors' names and layout.

The names are those of llama.cpp's ``constants.py``; what its converter changes is changed back: the
order of Llama's query and key rows, and the 1 that it adds to Gemma's norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_build.checkpoints.gguf_file import GgufFile
from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """How a GGUF file stores a family of models.

    Attributes:
        model_type: Hugging Face's name.
        architecture: Hugging Face's class.
        activation: Name and value of the configuration's activation function.
        settings: Settings of the configuration, with their keys in the metadata.
        sandwich: Whether norms also follow the attention and the MLP.
        permuted: Whether the query and key rows are interleaved.
        norm_offset: The number that the file's norms are too large by.
    """

    model_type: str
    architecture: str
    activation: tuple[str, str] = ("hidden_act", "silu")
    settings: Mapping[str, str] = field(default_factory=dict)
    sandwich: bool = False
    permuted: bool = False
    norm_offset: float = 0.0


_SETTINGS: Final = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_GELU: Final = ("hidden_activation", "gelu_pytorch_tanh")
_WINDOW: Final = {"sliding_window": "attention.sliding_window"}
_CAPS: Final = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_FAMILIES: Final[Mapping[str, _Family]] = {
    "llama": _Family(model_type="llama", architecture="LlamaForCausalLM", permuted=True),
    "qwen2": _Family(model_type="qwen2", architecture="Qwen2ForCausalLM"),
    "qwen3": _Family(model_type="qwen3", architecture="Qwen3ForCausalLM"),
    "gemma": _Family(
        model_type="gemma",
        architecture="GemmaForCausalLM",
        activation=_GELU,
        norm_offset=1.0,
    ),
    "gemma2": _Family(
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        activation=_GELU,
        settings=_WINDOW | _CAPS,
        sandwich=True,
        norm_offset=1.0,
    ),
    "gemma3": _Family(
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        activation=_GELU,
        settings=_WINDOW,
        sandwich=True,
        norm_offset=1.0,
    ),
}
_LOCAL_ROPE: Final = 10_000.0
"""Gemma 3's rope base in layers with a window."""
_WIDE_HEADS: Final = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose queries are scaled by hidden size / heads, not by head size."""
_PATTERN: Final = {"gemma2": 2, "gemma3": 6}
"""Every so many layers, one attends to all positions."""

_TOP: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_SANDWICH_LAYER: Final = _LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_TENSOR: Final = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")


class GgufWeights(Mapping[str, NDArray[np.float32]]):
    """A GGUF file's tensors under Hugging Face's names, dequantised one at a time.

    Args:
        file: The file.

    Raises:
        InvalidInputError: The architecture or a tensor is unknown.
    """

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._family = _family(file)
        self._names = {_rename(file, self._family, name): name for name in file.names}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return one tensor."""
        values = self._file.read(self._names[name])
        if name.endswith("norm.weight"):
            return values - np.float32(self._family.norm_offset)
        if self._family.permuted and (".q_proj." in name or ".k_proj." in name):
            heads = _heads(self._file, of_keys=".k_proj." in name)
            split = values.reshape(heads, -1, 2, *values.shape[1:])
            return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)
        return values

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._names)


def gguf_config(file: GgufFile) -> dict[str, Any]:
    """Return the content of ``config.json`` that a GGUF file's metadata stand for.

    Raises:
        InvalidInputError: The architecture is unknown, its rope is scaled, or a value is missing.
    """
    family, arch = _family(file), _architecture(file)
    _refuse_scaled_rope(file, arch)
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        family.activation[0]: family.activation[1],
        "dtype": "float32",
        "tie_word_embeddings": "output.weight" not in file.names,
        "vocab_size": file.shape("token_embd.weight")[0],
        "num_key_value_heads": _heads(file, of_keys=True),
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_up.bias" in file.names,
    }
    for name, key in (_SETTINGS | dict(family.settings)).items():
        config[name] = file.value(f"{arch}.{key}")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    config["head_dim"] = file.value(f"{arch}.attention.key_length", hidden // heads)
    rope = {"rope_type": "default", "rope_theta": file.value(f"{arch}.rope.freq_base", 10_000.0)}
    config["rope_parameters"] = rope
    if arch in _PATTERN:
        is_wide = config["num_hidden_layers"] == _WIDE_HEADS[arch]
        config["query_pre_attn_scalar"] = hidden // heads if is_wide else config["head_dim"]
        every = file.value(f"{arch}.attention.sliding_window_pattern", _PATTERN[arch])
        config["layer_types"] = [
            "sliding_attention" if (layer + 1) % every else "full_attention"
            for layer in range(config["num_hidden_layers"])
        ]
    if arch == "gemma3":
        local = rope | {"rope_theta": _LOCAL_ROPE}
        config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        config |= dict.fromkeys(_CAPS)
    for name in ("bos", "eos", "padding"):
        token = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        config[f"{name.replace('padding', 'pad')}_token_id"] = token
    return config


def _architecture(file: GgufFile) -> str:
    return str(file.value("general.architecture"))


def _family(file: GgufFile) -> _Family:
    if (family := _FAMILIES.get(arch := _architecture(file))) is None:
        raise InvalidInputError(
            f"{file.path}: architecture {arch!r}; a GGUF file of {', '.join(_FAMILIES)} is read, "
            "others as a Hugging Face directory"
        )
    return family


def _heads(file: GgufFile, *, of_keys: bool) -> int:
    arch = _architecture(file)
    heads = file.value(f"{arch}.attention.head_count")
    return int(file.value(f"{arch}.attention.head_count_kv", heads) if of_keys else heads)


def _refuse_scaled_rope(file: GgufFile, arch: str) -> None:
    kind = file.metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind != "none" or "rope_freqs.weight" in file.names:
        raise InvalidInputError(
            f"{file.path}: its rope is scaled, which a GGUF file describes differently; give the "
            "Hugging Face directory"
        )


def _rename(file: GgufFile, family: _Family, name: str) -> str:
    match = _TENSOR.fullmatch(name)
    if match is not None:
        layer, kind, ending = match.groups()
        table = _TOP if layer is None else _SANDWICH_LAYER if family.sandwich else _LAYER
        if kind in table:
            place = "" if layer is None else f"model.layers.{layer}."
            return f"{place}{table[kind]}.{ending}"
    raise InvalidInputError(
        f"{file.path}: tensor {name} has no place in a {family.model_type} model"
    )
