"""A tokenizer and a prompt template for tests, made from a few texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from adprior_runtime.prompt.template import PromptTemplate

PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"

_NEVER: Final = 1e6
"""Penalty of a special token, so that no text is tokenised into one."""


def compact_template(max_prompt_tokens: int) -> PromptTemplate:
    """Return a compact template of profile, gaps in days and advertisers."""
    return PromptTemplate(
        terminator=END,
        max_prompt_tokens=max_prompt_tokens,
        head=(USER,),
        profile=("{pair}",),
        event=("{gap}", "{advertiser}{end}"),
        tail=("{gap}",),
    )


def piece_tokenizer(
    texts: Iterable[str], vocabulary_size: int, names: Sequence[str] = ()
) -> Tokenizer:
    """Return a tokenizer that spells a text with as few pieces as possible.

    The pieces are those of a byte-level BPE of ``texts``, in which frequent values become one
    piece, and ``names``, each of which is one token.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = [PAD, END, USER]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = sorted((place, piece) for piece, place in learner.get_vocab().items())
    spelt = ("".join(part for part, _ in learner.pre_tokenizer.pre_tokenize_str(n)) for n in names)
    pieces = dict.fromkeys([*(piece for _, piece in learnt), *spelt])
    # All pieces have the same score, so the most likely spelling is the shortest.
    scores = [(piece, -_NEVER if piece in special else -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer
