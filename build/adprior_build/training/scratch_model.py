"""A Llama without pre-training, of a size given in TOML, for when no checkpoint is available.

Its initial weights are set by hand, so that little data and two cores suffice. Before the first
step it already forecasts popular advertisers, and those of the user's history by how often and how
recently they occur.

* Every advertiser's name is one token; input and output embeddings are tied.
* Attention starts as a copier: values and output projections form the identity (Trockman and
  Kolter, "Mimetic initialization of self-attention layers", ICML 2023); other weights are small.
* Three coordinates of the embeddings are reserved. ``_IS_NAME`` separates names from other tokens;
  attention starts by looking at names. ``_CONSTANT`` is the same for all tokens; queries use it.
  ``_POPULARITY`` holds a name's popularity, as the bias of an output layer often does (Karpathy, "A
  recipe for training neural networks", 2019).
* Attention also starts by looking at recent tokens: one pair of the rotary embedding makes half a
  turn over a prompt, and its cosine decreases with the distance.
* Tokens that are not names have small embeddings, and the last norm weighs the reserved
  coordinates, so that the first forecasts contain only names.

The size file::

    hidden_size = 192
    intermediate_size = 512
    layers = 4
    attention_heads = 6
    key_value_heads = 6
    vocabulary_size = 6144
    max_prompt_tokens = 320
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_build.toml_settings import load_settings
from adprior_runtime.errors import InvalidInputError

_END_ID: Final = 1
_POPULARITY, _IS_NAME, _CONSTANT = range(3)
"""The reserved coordinates."""
_SPREAD: Final = 0.05
"""Standard deviation of an embedding's coordinates."""
_OTHER_SPREAD: Final = 0.3
"""Factor on the spread for tokens that are not names."""
_MARK: Final = 6.0
"""Size of the reserved coordinates, in standard deviations of an embedding."""
_END_MARK: Final = 20.0
"""Factor on the terminator's ``_IS_NAME``. It is large because the terminator follows names."""
_POPULAR: Final = 3.0
"""Size of ``_POPULARITY`` per nat, in standard deviations of an embedding."""
_ATTENTION: Final = 2.0
"""Attention score of a name; other tokens have its negative. Both double for queries from tokens
with small embeddings."""
_NEARNESS: Final = 1.0
"""Attention score of the nearest token, minus that of a token a quarter of a turn away. It doubles
in the same way."""
_COPYING: Final = 0.7
"""Factor on the identity in values and output projections."""
_LATER_LAYERS: Final = 0.1
"""Output of later layers, relative to the first."""
_SHARPNESS: Final = 10.0
"""A name's logit if the last norm sees only that name's embedding."""
_LAST_NORM: Final = (1.5625, -3.125)
"""Weights of the last norm for ``_POPULARITY`` and ``_IS_NAME``. The last token of a prompt is
not a name, so the second weight reverses its sign."""
_NOISE: Final = 0.1
_CALM: Final = 0.1
"""Factors on the usual random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A Llama's shape; the number of heads must divide the hidden size."""

    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    vocabulary_size: int
    max_prompt_tokens: int

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or value < 1:
                raise InvalidInputError(f"size: {item.name} is {value!r}, expected a whole number")
        if self.hidden_size % self.attention_heads or self.attention_heads % self.key_value_heads:
            raise InvalidInputError(
                "size: attention_heads must divide hidden_size, key_value_heads attention_heads"
            )
        if self.head_size % 2:
            raise InvalidInputError(
                f"size: heads of {self.head_size} dimensions, expected an even number (rotary "
                "embeddings turn pairs)"
            )

    @property
    def head_size(self) -> int:
        """Dimensions of an attention head."""
        return self.hidden_size // self.attention_heads

    @classmethod
    def load(cls, path: Path) -> ModelSize:
        """Read a size file; unknown and missing keys are refused."""
        return load_settings(path, cls, "a size file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The catalogue's names in the vocabulary.

    Attributes:
        tokens: Each name's first token.
        log_shares: The log of each name's share of the training events, smoothed.
    """

    tokens: Sequence[int]
    log_shares: Sequence[float]


def scratch_model(size: ModelSize, vocabulary_size: int, names: Names) -> Any:
    """Return a Llama that starts as the module describes; its other weights are random."""
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.attention_heads,
            num_key_value_heads=size.key_value_heads,
            vocab_size=vocabulary_size,
            max_position_embeddings=2 * size.max_prompt_tokens,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=_END_ID,
            pad_token_id=0,
        )
    )
    with torch.no_grad():
        _mark_names(model.get_input_embeddings().weight, names)
        for place, layer in enumerate(model.model.layers):
            _make_copier(layer.self_attn, size, first=place == 0)
            layer.mlp.down_proj.weight.mul_(_CALM)
        last = model.model.norm.weight
        last.fill_(_SHARPNESS / (_SPREAD * size.hidden_size))
        last[[_POPULARITY, _IS_NAME]] = torch.tensor(_LAST_NORM)
    return model


def _mark_names(embeddings: Any, names: Names) -> None:
    mark = _MARK * _SPREAD
    tokens, logs = torch.tensor(names.tokens), torch.tensor(names.log_shares)
    embeddings.normal_(0, _SPREAD)
    spread = torch.full(embeddings.shape[:1], _OTHER_SPREAD)
    spread[tokens] = 1.0
    embeddings.mul_(spread[:, None])
    embeddings[:, [_POPULARITY, _IS_NAME, _CONSTANT]] = torch.tensor([mark, -mark, mark])
    embeddings[_END_ID, _IS_NAME] *= _END_MARK
    embeddings[tokens, _IS_NAME] = mark
    embeddings[tokens, _POPULARITY] = _SPREAD * _POPULAR * (logs - logs.mean())


def _make_copier(attention: Any, size: ModelSize, *, first: bool) -> None:
    """Let attention look at names and recent tokens, and pass on what it sees.

    Each key-value head carries a slice of the identity, which its query heads share evenly. For
    names, queries and keys meet in the slowest pair of the rotary embedding (RoFormer, Su et al.
    2021), which hardly turns over a prompt; for nearness, in the pair that makes half a turn.
    """
    width = size.head_size
    sharing = size.attention_heads // size.key_value_heads
    carried = (_COPYING * torch.eye(size.hidden_size))[: width * size.key_value_heads]
    slices = carried.T.reshape(size.hidden_size, size.key_value_heads, width)
    values, output = attention.v_proj.weight, attention.o_proj.weight
    values.mul_(_NOISE).add_(carried)
    output.mul_(_NOISE).add_(slices.repeat_interleave(sharing, dim=1).flatten(1) / sharing)
    reserved = [_POPULARITY, _IS_NAME, _CONSTANT]
    values[:, reserved] = 0.0
    output[reserved] = 0.0
    if not first:
        output.mul_(_LATER_LAYERS)
    slowest, turning = width // 2 - 1, _half_turn_pair(size)
    for projection, mark in ((attention.q_proj, _CONSTANT), (attention.k_proj, _IS_NAME)):
        weight = projection.weight
        weight.mul_(_CALM)
        for pair, source, score in ((turning, _CONSTANT, _NEARNESS), (slowest, mark, _ATTENTION)):
            meeting = torch.arange(pair, len(weight), width)
            weight[torch.cat([meeting, meeting + width // 2])] = 0.0
            weight[meeting, source] = math.sqrt(score * math.sqrt(width)) / _MARK


def _half_turn_pair(size: ModelSize) -> int:
    """Return the pair of the rotary embedding that makes about half a turn over a prompt."""
    wanted = math.log(math.pi / size.max_prompt_tokens)
    steps = 2 * math.log(10_000.0) / size.head_size  # between pairs, in logs of turns; Llama's base
    return min(max(0, round(-wanted / steps)), max(0, size.head_size // 2 - 2))
