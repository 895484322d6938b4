"""Minimal random checkpoints of several families, as transformers writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from adprior_runtime.prompt.template import PromptTemplate

END = "<|endoftext|>"


def save_gemma(
    directory: Path, texts: Iterable[str], *, max_prompt_tokens: int, **settings: Any
) -> None:
    """Write a random Gemma 3, always the same, with a tokenizer of ``texts`` and a template."""
    shape = {"num_hidden_layers": 2, "head_dim": 8, "initializer_range": 0.3}
    torch.manual_seed(5)
    save_random(directory, Gemma3TextConfig, texts=texts, **(shape | settings))
    template = PromptTemplate(
        terminator=END,
        max_prompt_tokens=max_prompt_tokens,
        head=("{end}",),
        profile=("{pair} ",),
        event=("{gap} ", "{advertiser}{end}"),
        tail=("{gap} ",),
    )
    (directory / "prompt.json").write_text(template.to_json(), encoding="utf-8")


def save_qwen(directory: Path) -> None:
    """Write a random Qwen2 and a tokenizer, as transformers does, without a template."""
    save_random(directory, Qwen2Config)


def save_random(
    directory: Path, family: Any, *, texts: Iterable[str] = (), **settings: Any
) -> None:
    """Write a minimal random model of a family and a tokenizer of ``texts``, without a template.

    ``family`` is a configuration class of transformers, made with ``settings``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["advertiser", "purchase", *texts], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(directory)
    config = family(**(random_shape(tokenizer.get_vocab_size()) | settings))
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def random_shape(vocabulary: int) -> dict[str, Any]:
    """Return the settings of a minimal model of any family."""
    return {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
