"""The architecture of a language model: one decoder, with what the families do differently.

Families: Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 2 and Gemma 3 (text). Biases and the norms of
queries and keys are not here: a layer has them if the checkpoint has their weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.errors import ArtefactError
from adprior_runtime.text.json_text import to_json

_Float64Array = npt.NDArray[np.float64]

EMBEDDING: Final = "model.embed_tokens.weight"
OUTPUT: Final = "lm_head.weight"
FINAL_NORM: Final = "model.norm.weight"

ACTIVATIONS: Final = ("silu", "gelu", "gelu_pytorch_tanh")


@dataclass(frozen=True, slots=True)
class Rotation:
    """The angles per position: one for each pair of a head's numbers.

    Attributes:
        frequencies: [head_size / 2], in radians a position.
    """

    frequencies: tuple[float, ...]

    def angles(self, positions: npt.ArrayLike) -> _Float64Array:
        """Return the angle of each pair at each position: float64 [positions, head_size / 2]."""
        return np.multiply.outer(
            np.asarray(positions, dtype=np.float64), np.asarray(self.frequencies)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of a decoder, and how it computes with its weights.

    Attributes:
        vocabulary, hidden, intermediate, layers: Sizes.
        heads, key_value_heads, head_size: Sizes of the attention.
        max_positions: The longest sequence.
        norm_epsilon: Added to the mean square of a norm.
        norm_offset: Added to the weights of a norm: 1 for the Gemmas, else 0.
        activation: ``silu``, ``gelu`` or ``gelu_pytorch_tanh``.
        tied: Whether the output matrix is the embedding matrix.
        embedding_scale: Factor on the embeddings of the input.
        sandwich: Whether attention and MLP are each followed by a norm, too.
        attention_scale: Factor on the attention scores.
        attention_cap, final_cap: The soft caps of attention scores and logits; None for none.
        rotations: Each layer's rotary embedding.
        windows: How many positions each layer sees, its own included; None for all.
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    max_positions: int
    norm_epsilon: float
    norm_offset: float
    activation: str
    tied: bool
    embedding_scale: float
    sandwich: bool
    attention_scale: float
    attention_cap: float | None
    final_cap: float | None
    rotations: tuple[Rotation, ...]
    windows: tuple[int | None, ...]

    def to_json(self) -> str:
        """Return the description as text."""
        return to_json(asdict(self)) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of `to_json`.

        Raises:
            ArtefactError: The file is missing, or something else, or its sizes do not fit together.
        """
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rotations = tuple(
                Rotation(tuple(map(float, each["frequencies"]))) for each in document["rotations"]
            )
            found = cls(**document | {"rotations": rotations, "windows": (*document["windows"],)})
            found._check()
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"{path}: not a language model's architecture: {error}") from error
        return found

    def _check(self) -> None:
        """Raise ValueError if a number has a wrong type, or if sizes do not fit together."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "int" and (type(value) is not int or value < 1):
                raise ValueError(f"{item.name} is {value!r}, expected a whole number above 0")
            if item.type == "float" and type(value) not in {int, float}:
                raise ValueError(f"{item.name} is {value!r}, expected a number")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, expected one of {ACTIVATIONS}")
        if self.heads % self.key_value_heads:
            raise ValueError(f"{self.heads} heads share {self.key_value_heads} keys and values")
        if not len(self.rotations) == len(self.windows) == self.layers:
            counts = f"{len(self.rotations)} rotations and {len(self.windows)} windows"
            raise ValueError(f"{counts} for {self.layers} layers")
        if any(2 * len(each.frequencies) != self.head_size for each in self.rotations):
            raise ValueError(f"a rotation does not fit heads of {self.head_size} numbers")


def weight_shapes(of: Architecture, given: Container[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight, by its Hugging Face name.

    Args:
        of: The architecture.
        given: The names of the weights that there are: they say which layers have biases, and norms
            of queries and keys. If one of a layer's joined matrices has a bias, all must.
    """
    inner, cached = of.heads * of.head_size, of.key_value_heads * of.head_size
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (of.vocabulary, of.hidden)}
    if not of.tied:
        shapes[OUTPUT] = (of.vocabulary, of.hidden)
    shapes[FINAL_NORM] = (of.hidden,)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if of.sandwich:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    joined = (
        {"self_attn.q_proj": (inner, of.hidden), "self_attn.k_proj": (cached, of.hidden)}
        | {"self_attn.v_proj": (cached, of.hidden)},
        {"self_attn.o_proj": (of.hidden, inner)},
        dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (of.intermediate, of.hidden)),
        {"mlp.down_proj": (of.hidden, of.intermediate)},
    )
    for layer in range(of.layers):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{name}.weight": (of.hidden,) for name in norms}
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            if f"{prefix}.{name}.weight" in given:
                shapes[f"{prefix}.{name}.weight"] = (of.head_size,)
        for matrices in joined:
            shapes |= {f"{prefix}.{name}.weight": shape for name, shape in matrices.items()}
            biases = {f"{prefix}.{name}.bias": shape[:1] for name, shape in matrices.items()}
            if any(name in given for name in biases):
                shapes |= biases
    return shapes


def differing_weight(of: Architecture, given: Collection[str]) -> str | None:
    """Return how the names of weights differ from those that an architecture has.

    Args:
        of: The architecture.
        given: The names of the weights that there are.

    Returns:
        Words to follow the place where the weights are; None if they are the same.
    """
    expected = weight_shapes(of, given)
    if missing := [name for name in expected if name not in given]:
        return f"has no weight {missing[0]}"
    if left := sorted(set(given) - expected.keys()):
        return (
            f"has {len(left)} weights that the architecture does not explain, among them {left[0]}"
        )
    return None
