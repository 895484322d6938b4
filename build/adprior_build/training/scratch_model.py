"""A tokenizer and a Llama from nothing, of a size given in TOML, for when no checkpoint is at hand.

Little data and two cores must do, so the start is a good one: before the first step, the model
already forecasts the user's own advertisers by how often and how lately they came, and some
popularity.

* Every advertiser's name is one token, and embeddings are tied.
* Attention begins as a copier: values and output projections make the identity (Trockman and
  Kolter, "Mimetic initialization of self-attention layers", ICML 2023), the rest is small.
* Three coordinates of the embeddings are set apart. By one of them names can be told from all
  else, and attention begins by looking at names; another is the same everywhere, which queries
  begin with; the third holds a name's popularity, as the bias of an output layer often does
  (Karpathy, "A recipe for training neural networks", 2019), and what asks for it.
* Attention begins by looking at what is near as well: one pair of the rotary embedding makes half
  a turn over a prompt, and its cosine fades with the distance.
* What is no name is quiet, and the last norm weighs the coordinates set apart, so that forecasts
  begin with names only.

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
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from adprior_build.data.event_log import UserHistory
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptTemplate, coarse_days
from adprior_runtime.terminal.progress import track

PAD, END, USER = "<|pad|>", "<|end|>", "<|user|>"
_END_ID: Final = 1

_POPULARITY, _IS_NAME, _CONSTANT = range(3)
"""The coordinates set apart."""
_SPREAD: Final = 0.05
"""Standard deviation of an embedding's coordinates."""
_QUIET: Final = 0.3
"""Of it, where the token is no name."""
_MARK: Final = 6.0
"""Of those set apart, in standard deviations."""
_END_MARK: Final = 20.0
"""How much more the terminator is marked as no name than others are: it follows names."""
_POPULAR: Final = 3.0
"""Of popularity: standard deviations for a nat."""
_ATTENTION: Final = 2.0
"""How much names score above nothing, and all else below, before attention's softmax; twice as much
where a quiet token asks."""
_NEARNESS: Final = 1.0
"""How much the nearest token scores above one a quarter of a turn away, likewise."""
_COPYING: Final = 0.7
"""Of the identity, in values and in output projection."""
_LATER: Final = 0.1
"""Of the first layer's output, what later ones begin with."""
_SHARPNESS: Final = 10.0
"""A name's logit where the last norm sees nothing but its embedding."""
_ASKING: Final = (1.5625, -3.125)
"""Weights of the last norm for popularity and for names. What comes last in a prompt is no name, so
that the second must turn over what it says."""
_NEVER: Final = 1e6
_SHARED: Final = 5
"""Users with a profile's value that make it a piece of the vocabulary."""
_NOISE: Final = 0.1
_CALM: Final = 0.1
"""Of the usual random weights."""


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
            document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path}: not a size file: {error}") from error
        known = [item.name for item in fields(cls)]
        needed = [item.name for item in fields(cls) if item.default is MISSING]
        if unknown := sorted(set(document) - set(known)):
            raise InvalidInputError(
                f"{path}: unknown {', '.join(unknown)}; expected {', '.join(known)}"
            )
        if missing := [name for name in needed if name not in document]:
            raise InvalidInputError(f"{path}: {', '.join(missing)} missing")
        return cls(**document)


def profile_texts(users: Sequence[UserHistory]) -> list[str]:
    """Return the profiles' pairs of key and value, those that several users share.

    They are to be whole in the vocabulary: a state may be called as an advertiser is, and a prompt
    that ends in that name would ask for what comes after a purchase.
    """
    counts = Counter(pair for user in users for pair in _pairs(user))
    return sorted(text for text, count in counts.items() if count >= _SHARED)


def _pairs(user: UserHistory) -> list[str]:
    return [f"{key}={value}" for key, value in user.profile.items()]


def training_texts(users: Sequence[UserHistory], names: Sequence[str]) -> Iterator[str]:
    """Yield what prompts are made of, value by value, as often as it occurs."""
    yield from names
    yield from (gap for days in range(4000) for gap in [coarse_days(days)] * 2)
    for user in track(users, desc="learning the vocabulary", unit="user", leave=False):
        yield from _pairs(user)
        for event in user.events:
            yield from (text for text in (event.advertiser, event.category) if text)


def scratch_tokenizer(
    texts: Iterable[str], size: ModelSize, names: Sequence[str] = ()
) -> Tokenizer:
    """Return a tokenizer that spells a text with the fewest pieces that it knows.

    The pieces are those of a byte-level BPE of the texts, in which a frequent value becomes one,
    spaces and all, and ``names``, so that each of these is one token.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = [PAD, END, USER]
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = sorted((place, piece) for piece, place in learner.get_vocab().items())
    spelt = ("".join(part for part, _ in learner.pre_tokenizer.pre_tokenize_str(n)) for n in names)
    pieces = dict.fromkeys([*(piece for _, piece in learnt), *spelt])
    # Pieces of one score: the likeliest spelling is the shortest. No text spells a special token.
    scores = [(piece, -_NEVER if piece in special else -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = learner.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def scratch_template(size: ModelSize) -> PromptTemplate:
    """Return a compact template: profile and advertisers, a token or two a value, nothing else."""
    return PromptTemplate(
        terminator=END,
        max_prompt_tokens=size.max_prompt_tokens,
        head=(USER,),
        profile=("{pair}",),
        event=("{gap}", "{advertiser}{end}"),
        tail=("{gap}",),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The advertisers' names in the vocabulary.

    Attributes:
        tokens: Each name's first token, for names of the catalogue.
        log_shares: Each one's log share of the training events, smoothed.
    """

    tokens: Sequence[int]
    log_shares: Sequence[float]


def scratch_model(size: ModelSize, vocabulary_size: int, names: Names) -> Any:
    """Return a Llama that begins as the module says; everything else in it is random."""
    import torch  # noqa: PLC0415  heavy
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

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
        last[[_POPULARITY, _IS_NAME]] = torch.tensor(_ASKING)
    return model


def _mark_names(embeddings: Any, names: Names) -> None:
    import torch  # noqa: PLC0415  heavy

    mark = _MARK * _SPREAD
    tokens = torch.tensor(names.tokens)
    logs = torch.tensor(names.log_shares)
    embeddings.normal_(0, _SPREAD)
    loud = torch.full(embeddings.shape[:1], _QUIET)
    loud[tokens] = 1.0
    embeddings.mul_(loud[:, None])
    embeddings[:, _POPULARITY], embeddings[:, _IS_NAME], embeddings[:, _CONSTANT] = (
        mark,
        -mark,
        mark,
    )
    embeddings[_END_ID, _IS_NAME] *= _END_MARK
    embeddings[tokens, _IS_NAME] = mark
    embeddings[tokens, _POPULARITY] = _SPREAD * _POPULAR * (logs - logs.mean())


def _make_copier(attention: Any, size: ModelSize, *, first: bool) -> None:
    """Let attention look at names and what is near, and hand on what it sees; later layers less.

    Each key-value head carries a slice of the identity, shared evenly by its query heads. For
    names, queries and keys meet in the slowest pair of the rotary embedding (RoFormer, Su et al.
    2021), which hardly turns over a prompt; for nearness, in the one that makes half a turn.
    """
    import torch  # noqa: PLC0415  heavy

    width = size.hidden_size // size.attention_heads
    sharing = size.attention_heads // size.key_value_heads
    identity = _COPYING * torch.eye(size.hidden_size)
    carried = identity[: width * size.key_value_heads]
    values, output = attention.v_proj.weight, attention.o_proj.weight
    values.mul_(_NOISE).add_(carried)
    slices = carried.T.reshape(size.hidden_size, size.key_value_heads, width)
    output.mul_(_NOISE).add_(slices.repeat_interleave(sharing, dim=1).flatten(1) / sharing)
    apart = [_POPULARITY, _IS_NAME, _CONSTANT]
    values[:, apart] = 0.0
    output[apart] = 0.0
    if not first:
        output.mul_(_LATER)
    slowest = width // 2 - 1
    turning = _pair_of_half_a_turn(size, width)
    for projection, asked in ((attention.q_proj, _CONSTANT), (attention.k_proj, _IS_NAME)):
        weight = projection.weight
        weight.mul_(_CALM)
        for pair, source, score in (
            (turning, _CONSTANT, _NEARNESS),
            (slowest, asked, _ATTENTION),
        ):
            meeting = torch.arange(pair, len(weight), width)
            weight[torch.cat([meeting, meeting + width // 2])] = 0.0
            weight[meeting, source] = math.sqrt(score * math.sqrt(width)) / _MARK


def _pair_of_half_a_turn(size: ModelSize, width: int) -> int:
    """Return which pair of the rotary embedding makes about half a turn over a prompt."""
    wanted = math.log(math.pi / size.max_prompt_tokens)
    steps = 2 * math.log(10_000.0) / width  # between pairs, in logs of turns; Llama's base
    return min(max(0, round(-wanted / steps)), max(0, width // 2 - 2))
