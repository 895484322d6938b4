"""A tokenizer and a Llama from nothing, of a size given in TOML, for when no checkpoint is at hand.

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

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from adprior_build.event_log import UserHistory
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt import PromptTemplate

__all__ = ["ModelSize", "scratch_model", "scratch_template", "scratch_tokenizer", "training_texts"]

PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A Llama's shape; heads must divide the hidden size."""

    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    vocabulary_size: int
    max_prompt_tokens: int

    def __post_init__(self) -> None:
        """Refuse sizes that no model can have."""
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or value < 1:
                raise InvalidInputError(f"size: {item.name} is {value!r}, expected a whole number")
        if self.hidden_size % self.attention_heads or self.attention_heads % self.key_value_heads:
            raise InvalidInputError(
                "size: attention_heads must divide hidden_size, key_value_heads attention_heads"
            )
        if self.hidden_size // self.attention_heads % 2:
            raise InvalidInputError(
                f"size: heads of {self.hidden_size // self.attention_heads} dimensions, expected "
                "an even number (rotary embeddings turn pairs)"
            )

    @classmethod
    def load(cls, path: Path) -> ModelSize:
        """Read a size file; unknown and missing keys are refused."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(**document)
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInputError(f"{path}: not a size file: {error}") from error


def training_texts(users: Sequence[UserHistory], names: Sequence[str]) -> Iterator[str]:
    """Yield what prompts are made of, value by value, as often as it occurs."""
    yield from names
    yield from (str(days) for days in range(200) for _ in range(2))
    for user in users:
        yield from (text for item in user.profile.items() for text in item)
        for event in user.events:
            yield from (text for text in (event.advertiser, event.category) if text)


def scratch_tokenizer(texts: Iterable[str], size: ModelSize) -> Tokenizer:
    """Train a byte-level BPE in which a frequent name becomes one token, spaces and all."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary_size,
        special_tokens=[PAD, END, USER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def scratch_template(size: ModelSize) -> PromptTemplate:
    """Return a compact template: a token or two a value, nothing else."""
    return PromptTemplate(
        terminator=END,
        max_prompt_tokens=size.max_prompt_tokens,
        head=(USER,),
        profile=("{key}", "{value}"),
        event=("{days_since_previous}", "{advertiser}{end}", "{category}"),
        tail=("{days_since_previous}",),
    )


def scratch_model(size: ModelSize, vocabulary_size: int) -> Any:
    """Return a randomly initialised Llama with tied embeddings (copying is then easily learnt)."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  heavy

    return LlamaForCausalLM(
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
            eos_token_id=1,
            pad_token_id=0,
        )
    )
