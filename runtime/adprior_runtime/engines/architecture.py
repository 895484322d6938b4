"""The architecture of a language model: one decoder, with what the families do differently.

Families: Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 2 and Gemma 3 (text). Biases and the norms of
queries and keys are not here: a layer has them if the checkpoint has their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_Float64Array = npt.NDArray[np.float64]

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
    """What a checkpoint's weights are for.

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
