"""A checkpoint's shape, read from its ``config.json``: family, number of parameters, limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adprior_runtime.engines.registry import ONNX
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.tensorrt_llm_files import FLOAT16_OVERFLOWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The conversion of a model family by TensorRT-LLM.

    Attributes:
        script: Conversion script, below the image's example scripts.
        norms: Normalisations of the hidden state per layer.
        attention_bias: Whether queries, keys and values have a bias.
        head_norms: Whether queries and keys are normalised per head.
        scaled_rotary: Whether the conversion reads scaled rotary positions (``rope_scaling``).
        fp8_fault: An open fault of TensorRT-LLM with this family in fp8.
    """

    script: str
    norms: int = 2
    attention_bias: bool = False
    head_norms: bool = False
    scaled_rotary: bool = True
    fp8_fault: str = ""


_LLAMA: Final = "models/core/llama/convert_checkpoint.py"
_QWEN: Final = "models/core/qwen/convert_checkpoint.py"
GEMMA_SCRIPT: Final = "models/core/gemma/convert_checkpoint.py"

FAMILIES: Final[dict[str, Family]] = {
    "LlamaForCausalLM": Family(script=_LLAMA),
    "MistralForCausalLM": Family(script=_LLAMA),
    "Qwen2ForCausalLM": Family(script=_QWEN, attention_bias=True),
    "Qwen3ForCausalLM": Family(script=_QWEN, head_norms=True, fp8_fault="#9298"),
    "GemmaForCausalLM": Family(script=GEMMA_SCRIPT, scaled_rotary=False),
    "Gemma2ForCausalLM": Family(script=GEMMA_SCRIPT, norms=4, scaled_rotary=False),
    "Gemma3ForCausalLM": Family(script=GEMMA_SCRIPT, norms=4, head_norms=True, scaled_rotary=False),
}
"""The family of each architecture that ``config.json`` may name."""

_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The shape of a decoder model.

    Attributes:
        architecture: One of `FAMILIES`.
        hidden, layers, heads, kv_heads, head_size, intermediate, vocabulary: Its dimensions.
        positions: The longest sequence it supports.
        window: Attention window of all or some layers; None for full attention.
        stored_bytes: Bytes per parameter in the checkpoint.
    """

    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    positions: int
    window: int | None = None
    stored_bytes: int = 2

    @classmethod
    def read(cls, checkpoint: Path) -> ModelShape:
        """Read a checkpoint's ``config.json``.

        Raises:
            InvalidInputError: It is malformed, of an unsupported family, or would run code.
        """
        path = checkpoint / "config.json"
        config = read_config(path)
        try:
            return cls._of(config)
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from error

    @classmethod
    def _of(cls, config: dict[str, Any]) -> ModelShape:
        _check_rotary(config)
        heads, hidden = _number(config, "num_attention_heads"), _number(config, "hidden_size")
        uses_window = config.get("use_sliding_window", True)
        window = _number(config, "sliding_window", 0) if uses_window else 0
        stored = config.get("dtype") or config.get("torch_dtype") or "float32"
        if stored not in [*_BYTES]:
            expected = ", ".join(_BYTES)
            raise InvalidInputError(f"dtype is {stored!r:.80}, expected one of {expected}")
        if hidden < heads:
            raise InvalidInputError(f"hidden_size {hidden} is below num_attention_heads {heads}")
        return cls(
            architecture=config["architectures"][0],
            hidden=hidden,
            layers=_number(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=_number(config, "num_key_value_heads", heads),
            head_size=_number(config, "head_dim", hidden // heads),
            intermediate=_number(config, "intermediate_size"),
            vocabulary=_number(config, "vocab_size"),
            positions=_number(config, "max_position_embeddings"),
            window=window or None,
            stored_bytes=_BYTES[stored],
        )

    @property
    def family(self) -> Family:
        """The conversion of this model by TensorRT-LLM."""
        return FAMILIES[self.architecture]

    def check_dtype(self, dtype: str) -> None:
        """Refuse a type of the activations that this model overflows.

        Raises:
            InvalidInputError: The message names the type to use.
        """
        if dtype == "float16" and self.architecture in FLOAT16_OVERFLOWS:
            raise InvalidInputError(
                f"deployment: dtype is {dtype}, which the activations of {self.architecture} "
                "overflow (transformers #36822); expected bfloat16"
            )

    @property
    def layer_weights(self) -> int:
        """Number of parameters in the layers' matrices, which fp8 halves."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def other_weights(self) -> int:
        """Number of parameters in embeddings, output layer, normalisations and biases.

        Embeddings are counted twice, tied or not: conversion writes a separate output layer, and
        it was not checked whether an engine keeps one copy or two.
        """
        family = self.family
        layer = family.norms * self.hidden
        layer += self.head_size * (self.heads + 2 * self.kv_heads) * family.attention_bias
        layer += 2 * self.head_size * family.head_norms
        return 2 * self.vocabulary * self.hidden + self.layers * layer + self.hidden


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` of a supported architecture that names no code to run.

    The conversion scripts load checkpoints with ``trust_remote_code``, so none may be there.

    Raises:
        InvalidInputError: The message gives the reason.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path}: not a checkpoint's configuration: {error}") from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path}: not a checkpoint's configuration: not a JSON object")
    named = config.get("architectures") or [None]
    architecture = named[0] if isinstance(named, list) else named
    if "auto_map" in config:
        raise InvalidInputError(f"{path}: has auto_map, code to run; only plain checkpoints")
    if config.get("quantization_config"):
        raise InvalidInputError(f"{path}: already quantised; give the checkpoint it was made from")
    if architecture not in [*FAMILIES]:  # a list: what was read may not be hashable
        raise InvalidInputError(
            f"{path}: architecture {architecture!r:.80}, expected one of {', '.join(FAMILIES)}"
        )
    return config


def _check_rotary(config: Mapping[str, Any]) -> None:
    """Refuse scaled rotary positions where the conversion would drop them without a word.

    Gemma's looks for ``rotary_scaling``, which no checkpoint has (`models/gemma/config.py`).
    """
    architecture = config["architectures"][0]
    if FAMILIES[architecture].scaled_rotary:
        return
    found = [config.get("rope_scaling"), config.get("rope_parameters")]
    found += [*found[1].values()] if isinstance(found[1], Mapping) else []
    for rotary in found:
        if not isinstance(rotary, Mapping):
            continue
        kind = rotary.get("rope_type", rotary.get("type", "default"))
        if kind != "default":
            raise InvalidInputError(
                f"rotary positions are scaled ({kind!r:.80}), which TensorRT-LLM's conversion of "
                f"{architecture} ignores; expected default ones, or --engine {ONNX.name}"
            )


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return a whole number of at least 1, or the default if the key is absent."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 1:
        raise InvalidInputError(f"{key} is {value!r:.80}, expected a whole number of at least 1")
    return value
