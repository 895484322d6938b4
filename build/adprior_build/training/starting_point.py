"""What a training starts from: a model in torch, its tokenizer and template, and its base."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoConfig

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.checkpoints.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_FILE,
    Lora,
)
from adprior_build.checkpoints.checkpoint import (
    Checkpoint,
    find_base,
    open_checkpoint,
    open_uncorrected,
)
from adprior_build.checkpoints.hugging_face import SafetensorsFile
from adprior_build.checkpoints.tokenizer import load_tokenizer
from adprior_build.checkpoints.trimming import (
    count_tokens,
    trim_vocabulary,
)
from adprior_build.data.event_log import UserHistory
from adprior_build.training.checkpoint import build_model, plain_template
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.template import (
    SECTION_FIELDS,
    PromptTemplate,
    coarse_number,
    in_words,
)

_NUMBERS = range(10_000)
"""Counts and days that a template may show."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StartingPoint:
    """A model before training.

    Attributes:
        checkpoint: The model without corrections.
        tokenizer: Its tokenizer.
        template: Its prompt template.
        source: The checkpoint or adapter that was opened.
        base: The checkpoint that an adapter of this model names as its base.
        vocabulary: int32, the base's id of each token; None for the base's own vocabulary.
        lora: The settings of the corrections that training continues; None without any.
        corrections: These corrections, under PEFT's names.
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    template: PromptTemplate
    source: Path
    base: Path
    vocabulary: NDArray[np.int32] | None = None
    lora: Lora | None = None
    corrections: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def open(cls, source: Path, template: PromptTemplate | None = None) -> StartingPoint:
        """Open a checkpoint or an adapter.

        Args:
            source: A Hugging Face directory, a GGUF file or an adapter.
            template: Takes the place of the checkpoint's own, or of a plain one.

        Raises:
            InvalidInputError: A file is missing or damaged.
        """
        tokenizer = load_tokenizer(source)
        vocabulary, lora, corrections, base = None, None, {}, source
        if (source / BASE_FILE).is_file():
            base = find_base(source)
            checkpoint, vocabulary = open_uncorrected(source)
            lora = Lora.load(source / ADAPTER_CONFIG)
            corrections = dict(SafetensorsFile(source / ADAPTER_WEIGHTS))
        else:
            checkpoint = open_checkpoint(source)
        if template is None and (source / "prompt.json").is_file():
            template = PromptTemplate.load(source / "prompt.json")
        return cls(
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            template=template or _plain(source, checkpoint, tokenizer),
            source=source,
            base=base,
            vocabulary=vocabulary,
            lora=lora,
            corrections=corrections,
        )

    def trim(
        self, size: int, catalogues: Sequence[Catalogue], users: Sequence[UserHistory]
    ) -> StartingPoint:
        """Return the point with fewer tokens: those of catalogues, log and template, and others.

        Args:
            size: Number of tokens to fill up to; what is needed is kept whatever the size.
            catalogues: Their names are kept whole.
            users: The values of their events and profiles are kept whole, free text as it fits.
        """
        needed = count_tokens(self.tokenizer, _needed_texts(self.template, catalogues, users))
        literals = (
            self.tokenizer.encode(text, add_special_tokens=False).ids
            for text in (*_literals(self.template), self.template.terminator)
        )
        trimmed = trim_vocabulary(
            self.tokenizer,
            {*needed, *chain.from_iterable(literals)},
            common=count_tokens(self.tokenizer, _free_texts(self.template, users)),
            size=size,
            config=self.checkpoint.config,
        )
        earlier = self.vocabulary
        return StartingPoint(
            checkpoint=self.checkpoint.trim(trimmed),
            tokenizer=trimmed.tokenizer,
            template=self.template,
            source=self.source,
            base=self.base,
            vocabulary=trimmed.kept if earlier is None else earlier[trimmed.kept],
            lora=self.lora,
            corrections=self.corrections,
        )

    def build_model(self) -> Any:
        """Return the model in torch, float32, without corrections, ready for evaluation."""
        return build_model(self.checkpoint, self.source)


def _plain(source: Path, checkpoint: Checkpoint, tokenizer: Tokenizer) -> PromptTemplate:
    try:
        config = AutoConfig.for_model(**checkpoint.config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"{source}: {' '.join(str(error).split())[:300]}") from error
    return plain_template(source, config, tokenizer)


def _needed_texts(
    template: PromptTemplate, catalogues: Sequence[Catalogue], users: Sequence[UserHistory]
) -> Iterator[str]:
    """Yield every value that prompts and names consist of, as it is shown."""
    for catalogue in catalogues:
        for names in (catalogue.names, *catalogue.aliases):
            yield from map(template.shown, names)
    yield from (coarse_number(number) for number in _NUMBERS)
    for user in users:
        for key, value in user.profile.items():
            yield from map(template.shown, (key, value, f"{key}={value}"))
        for event in user.events:
            category = event.category or ""
            for value in (event.action, event.advertiser or "", category, in_words(category)):
                yield template.shown(value)


def _free_texts(template: PromptTemplate, users: Sequence[UserHistory]) -> Iterable[str]:
    return (template.shown(e.text) for user in users for e in user.events if e.text)


def _literals(template: PromptTemplate) -> Iterator[str]:
    """Yield the template's text between its fields."""
    for section in SECTION_FIELDS:
        for piece in getattr(template, section):
            yield from (literal for literal, *_ in string.Formatter().parse(piece))
