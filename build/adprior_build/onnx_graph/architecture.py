"""Reads the architecture of a language model from the ``config.json`` of its checkpoint.

Families: Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 2 and Gemma 3 (text). They are one decoder with
a few differences, and each difference is a field of `Architecture`.

The meaning of each setting is that of the Python package transformers, version 5. Its older forms
of the rotary settings are read too (`adprior_build.onnx_graph.rotary`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from adprior_build.onnx_graph.rotary import read_rotation
from adprior_runtime.engines.architecture import ACTIVATIONS, Architecture
from adprior_runtime.errors import InvalidInputError

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
SLIDING, FULL = "sliding_attention", "full_attention"

_T = TypeVar("_T")

# The defaults of transformers, for settings that the families' published files leave out.
_GEMMA: Final[dict[str, Any]] = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_DEFAULTS: Final[Mapping[str, dict[str, Any]]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": _GEMMA,
    "gemma2": _GEMMA
    | {
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": _GEMMA
    | {"query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6},
}


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Describe a checkpoint.

    Args:
        config: The content of its ``config.json``.

    Raises:
        InvalidInputError: The family, or one of its settings, is not supported.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise InvalidInputError(
            f"config.json: model_type is {family!r}, expected one of {', '.join(FAMILIES)}"
        )
    settings: dict[str, Any] = dict(_DEFAULTS[family]) | {
        key: value for key, value in config.items() if value is not None or "softcap" in key
    }
    if settings.get("use_bidirectional_attention"):
        raise InvalidInputError("config.json: use_bidirectional_attention is not supported")
    is_gemma = family.startswith("gemma")
    hidden = _read(settings, "hidden_size", int)
    layers = _read(settings, "num_hidden_layers", int)
    heads = _read(settings, "num_attention_heads", int)
    head_size = int(settings.get("head_dim", hidden // heads))
    kinds = _layer_kinds(family, settings, layers)
    window = settings.get("sliding_window")
    rotations = {kind: read_rotation(settings, kind, head_size) for kind in set(kinds)}
    return Architecture(
        vocabulary=_read(settings, "vocab_size", int),
        hidden=hidden,
        intermediate=_read(settings, "intermediate_size", int),
        layers=layers,
        heads=heads,
        key_value_heads=int(settings.get("num_key_value_heads", heads)),
        head_size=head_size,
        max_positions=_read(settings, "max_position_embeddings", int),
        norm_epsilon=float(settings.get("rms_norm_eps", 1e-6)),
        norm_offset=1.0 if is_gemma else 0.0,
        activation=_activation(settings, is_gemma=is_gemma),
        tied=bool(settings.get("tie_word_embeddings", False)),
        embedding_scale=hidden**0.5 if is_gemma else 1.0,
        sandwich=family in {"gemma2", "gemma3_text"},
        attention_scale=float(settings.get("query_pre_attn_scalar", head_size)) ** -0.5,
        attention_cap=_optional_cap(settings, "attn_logit_softcapping"),
        final_cap=_optional_cap(settings, "final_logit_softcapping"),
        rotations=tuple(rotations[kind] for kind in kinds),
        windows=tuple(
            int(window) if kind == SLIDING and window is not None else None for kind in kinds
        ),
    )


def _layer_kinds(family: str, settings: Mapping[str, Any], layers: int) -> list[str]:
    """Return each layer's kind of attention, `SLIDING` or `FULL`."""
    if settings.get("layer_types"):
        kinds = [str(kind) for kind in settings["layer_types"]]
        if len(kinds) != layers or not set(kinds) <= {SLIDING, FULL}:
            raise InvalidInputError(
                f"config.json: layer_types has {len(kinds)} entries of {sorted(set(kinds))}, "
                f"expected {layers} of {FULL} and {SLIDING}"
            )
    elif family == "gemma2":
        kinds = [FULL if layer % 2 else SLIDING for layer in range(layers)]
    elif family == "gemma3_text":
        pattern = int(settings["sliding_window_pattern"])
        kinds = [SLIDING if (layer + 1) % pattern else FULL for layer in range(layers)]
    elif family == "mistral":
        kinds = [SLIDING if settings.get("sliding_window") else FULL] * layers
    elif settings.get("use_sliding_window"):
        first = int(settings.get("max_window_layers", 28))
        kinds = [SLIDING if layer >= first else FULL for layer in range(layers)]
    else:
        kinds = [FULL] * layers
    if SLIDING in kinds and not settings.get("sliding_window"):
        raise InvalidInputError("config.json: has sliding_attention layers and no sliding_window")
    return kinds


def _activation(settings: Mapping[str, Any], *, is_gemma: bool) -> str:
    names = ("hidden_activation", "hidden_act") if is_gemma else ("hidden_act",)
    found = next((settings[name] for name in names if name in settings), "silu")
    if found not in ACTIVATIONS:
        raise InvalidInputError(
            f"config.json: the activation is {found!r}, expected {', '.join(ACTIVATIONS)}"
        )
    return str(found)


def _optional_cap(settings: Mapping[str, Any], key: str) -> float | None:
    value = settings.get(key)
    return None if value is None else float(value)


def _read(settings: Mapping[str, Any], key: str, kind: Callable[[Any], _T]) -> _T:
    try:
        return kind(settings[key])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"config.json: {key} is {settings.get(key)!r}, expected a number"
        ) from error
