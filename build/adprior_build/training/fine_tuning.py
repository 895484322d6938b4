"""Fine-tuning as a whole: from users and a catalogue to a checkpoint directory."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.event_log import UserHistory
from adprior_build.data.log_summary import describe_training_data
from adprior_build.training.checkpoint import load_checkpoint, open_window
from adprior_build.training.examples import EpochExamples, Example, ExampleSource
from adprior_build.training.loop import prepare, train
from adprior_build.training.lora import add_lora
from adprior_build.training.progress import Position
from adprior_build.training.record import (
    TRAINING_RECORD,
    describe_training,
    identify_training,
    profile_keys,
)
from adprior_build.training.scratch_model import ModelSize, Names, scratch_model
from adprior_build.training.scratch_tokenizer import (
    profile_texts,
    scratch_template,
    scratch_tokenizer,
    training_texts,
)
from adprior_build.training.settings import Settings
from adprior_build.training.state import StateKeeper
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.text.json_text import to_json

_CACHED_VALUES: Final = 200_000
"""Size of the renderer's cache: every epoch renders the same names again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The inputs of a training.

    Attributes:
        catalogue: The advertisers.
        read: All users with all events.
        training: The training users, with their events before the cut.
        validation: The users that choose the epoch, with their events before the cut.
    """

    catalogue: Catalogue
    read: Sequence[UserHistory]
    training: Sequence[UserHistory]
    validation: Sequence[UserHistory]


def fine_tune(
    output: Path, args: argparse.Namespace, data: TrainingData, keeper: StateKeeper
) -> Position:
    """Train, and write the checkpoint to ``output``.

    Args:
        output: A directory.
        args: The options of `adprior train`.
        data: The users and the catalogue.
        keeper: Keeps the training's state.

    Returns:
        The final position.

    Raises:
        InvalidInputError: An input does not fit, training diverges, or a file cannot be written.
    """
    prepare(args.seed, args.threads, args.device)
    model, tokenizer, renderer = _starting_point(args, data)
    template = renderer.template
    row_of = data.catalogue.rows_by_name(renderer.name_ids)
    for line in describe_training_data(
        args.events,
        lambda name: row_of(name) is not None,
        read=data.read,
        training=data.training,
        validation=data.validation,
    ):
        print(f"adprior train: {line}", flush=True)
    trie, _ = data.catalogue.build_trie(renderer.name_ids)
    template.require_positions(model.config.get_text_config().max_position_embeddings, trie.depth)
    open_window(model, template.max_prompt_tokens + trie.depth)
    counts = data.catalogue.count_events(data.training, renderer.name_ids)
    popular_first = np.argsort(-np.array(counts), kind="stable").tolist()
    names = [data.catalogue.names[row] for row in popular_first]
    epoch_examples, checks = _draw_examples(args, data, renderer, trie, names)
    if args.freeze_embeddings:
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            embeddings.requires_grad_(requires_grad=False)
    model, position = _optimise(model, epoch_examples, checks, renderer.end_id, args, keeper)
    denied = template.denied_keys(profile_keys(data.training))
    record = describe_training(args, data.training, data.validation, position, denied)
    try:
        model.save_pretrained(output)
        for weights in output.glob("*.safetensors"):  # they are written as private files
            weights.chmod(output.stat().st_mode & 0o666)
        _write_rest(output, tokenizer, template, data.catalogue, counts, record)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InvalidInputError(
            f"{args.output}: cannot be written: {reason}; the finished training is kept in "
            f"{keeper.directory}: make room and run the same command again"
        ) from error
    return position


def _draw_examples(
    args: argparse.Namespace,
    data: TrainingData,
    renderer: PromptRenderer,
    trie: Trie,
    names: Sequence[str],
) -> tuple[EpochExamples, list[Example]]:
    """Return the source of training examples, and the validation examples."""

    def source(users: Sequence[UserHistory], **swaps: Any) -> ExampleSource:
        return ExampleSource(
            users, renderer, trie, args.seed, first_of_day=args.first_of_day, **swaps
        )

    training = source(data.training, names=names, name_swaps=args.name_swaps)
    epoch_examples = lru_cache(maxsize=1)(training.epoch)
    if not epoch_examples(0):
        raise InvalidInputError(
            f"{args.events}: nothing to train on: of {sum(len(u.events) for u in data.training)} "
            "events before the cut, no event names an advertiser of the catalogue"
        )
    return epoch_examples, source(data.validation).epoch(0)


def _write_rest(
    output: Path,
    tokenizer: Tokenizer,
    template: PromptTemplate,
    catalogue: Catalogue,
    event_counts: Sequence[int],
    record: dict[str, Any],
) -> None:
    """Write everything in a checkpoint but the model."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=template.terminator
    ).save_pretrained(output)
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "prompt.json").write_text(template.to_json(), encoding="utf-8")
    pa.parquet.write_table(catalogue.table, output / "catalogue.parquet")
    popularity = {
        "advertiser_id": pa.array(catalogue.ids, pa.int64()),
        "events": pa.array(event_counts, pa.int64()),
    }
    pa.parquet.write_table(pa.table(popularity), output / "popularity.parquet")
    text = to_json(record, indent=2) + "\n"
    (output / TRAINING_RECORD).write_text(text, encoding="utf-8")


def _optimise(
    model: Any,
    epoch_examples: EpochExamples,
    checks: Sequence[Example],
    terminator: int,
    args: argparse.Namespace,
    keeper: StateKeeper,
) -> tuple[Any, Position]:
    """Train, resuming from a kept state; return the plain model and the final position."""
    adapted = None
    if args.lora_rank is not None:
        adapted = add_lora(
            model,
            rank=args.lora_rank,
            alpha=args.lora_alpha or 2 * args.lora_rank,
            dropout=args.dropout,
            embeddings=args.lora_embeddings,
        )
    kept = keeper.begin(identify_training(args, examples=epoch_examples(0), checks=checks))
    if kept is not None:
        was = Position(**kept.position)
        print(
            f"adprior train: resumes from epoch {was.epoch}, step {was.step}, after "
            f"{was.seconds / 60:.1f} minutes of training; kept in {keeper.directory}",
            flush=True,
        )
    position = train(
        model,
        epoch_examples,
        checks,
        Settings.of(args),
        terminator=terminator,
        start_share=args.start_share,
        keeper=keeper,
        kept=kept,
    )
    return (model if adapted is None else adapted.merge_and_unload()), position


def _starting_point(
    args: argparse.Namespace, data: TrainingData
) -> tuple[Any, Tokenizer, PromptRenderer]:
    """Return model, tokenizer and renderer, from a checkpoint or from scratch."""
    template = None if args.template is None else PromptTemplate.load(args.template)
    if args.size is not None:
        return _from_scratch(ModelSize.load(args.size), template, data.catalogue, data.training)
    model, tokenizer, own = load_checkpoint(vars(args)["from"])
    renderer = PromptRenderer(template or own, tokenizer, cached_values=_CACHED_VALUES)
    return model, tokenizer, renderer


def _from_scratch(
    size: ModelSize,
    template: PromptTemplate | None,
    catalogue: Catalogue,
    training: Sequence[UserHistory],
) -> tuple[Any, Tokenizer, PromptRenderer]:
    template = template or scratch_template(size.max_prompt_tokens)
    shown, names = template.shown, [template.shown(name) for name in catalogue.names]
    users = [_without(template.denied_keys(user.profile), user) for user in training]
    tokenizer = scratch_tokenizer(
        map(shown, training_texts(users, names)),
        size.vocabulary_size,
        [*names, *map(shown, profile_texts(users))],
    )
    renderer = PromptRenderer(template, tokenizer, cached_values=_CACHED_VALUES)
    counts = np.array(catalogue.count_events(training, renderer.name_ids)) + 0.5
    marked = Names(
        tokens=[renderer.name_ids(name)[0] for name in names],
        log_shares=np.log(counts / counts.sum()).tolist(),
    )
    return scratch_model(size, tokenizer.get_vocab_size(), marked), tokenizer, renderer


def _without(keys: Collection[str], user: UserHistory) -> UserHistory:
    if not keys:
        return user
    return replace(user, profile={k: v for k, v in user.profile.items() if k not in keys})
