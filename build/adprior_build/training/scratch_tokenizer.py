"""The tokenizer and the prompt template of a model trained from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from adprior_build.data.event_log import UserHistory
from adprior_runtime.prompt.template import PromptTemplate, coarse_number
from adprior_runtime.terminal.progress import track

PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"

_NEVER: Final = 1e6
"""Penalty of a special token, so that no text is tokenised into one."""
_SHARED: Final = 5
"""A profile's value becomes a piece of the vocabulary if this many users have it."""


def scratch_template(max_prompt_tokens: int) -> PromptTemplate:
    """Return a compact template of profile, gaps in days and advertisers."""
    return PromptTemplate(
        terminator=END,
        max_prompt_tokens=max_prompt_tokens,
        head=(USER,),
        profile=("{pair}",),
        event=("{gap}", "{advertiser}{end}"),
        tail=("{gap}",),
    )


def scratch_tokenizer(
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


def training_texts(users: Sequence[UserHistory], names: Sequence[str]) -> Iterator[str]:
    """Yield the values that prompts consist of, as often as they occur."""
    yield from names
    yield from (gap for days in range(4000) for gap in [coarse_number(days)] * 2)
    for user in track(users, desc="learning the vocabulary", unit="user", leave=False):
        yield from _pairs(user)
        for event in user.events:
            yield from (text for text in (event.advertiser, event.category) if text)


def profile_texts(users: Sequence[UserHistory]) -> list[str]:
    """Return the profiles' pairs of key and value that several users share.

    Each becomes one token. Otherwise a value that contains an advertiser's name, such as a state,
    would be tokenised into that name, and the model would take it for a purchase.
    """
    counts = Counter(pair for user in users for pair in _pairs(user))
    return sorted(text for text, count in counts.items() if count >= _SHARED)


def _pairs(user: UserHistory) -> list[str]:
    return [f"{key}={value}" for key, value in user.profile.items()]
