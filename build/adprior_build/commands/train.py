"""``adprior train``: fine-tune a causal language model on event logs."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from safetensors import SafetensorError
from tokenizers import Tokenizer

from adprior_build.catalogue.catalogue import Catalogue, read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import UserHistory, name_advertisers, read_users
from adprior_build.data.split import Split
from adprior_build.training import options
from adprior_build.training.batches import RememberedEpochs
from adprior_build.training.data_summary import describe_data
from adprior_build.training.examples import Example, ExampleSource
from adprior_build.training.options import (
    check_options,
    loop_settings,
    work_directory,
)
from adprior_build.training.position import Position
from adprior_build.training.progress_line import describe_time
from adprior_build.training.record import describe_training, identify_training, profile_keys
from adprior_build.training.scratch_model import (
    ModelSize,
    Names,
    profile_texts,
    scratch_model,
    scratch_template,
    scratch_tokenizer,
    training_texts,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_directory
from adprior_runtime.prompt.renderer import MAX_FIELD_CHARS, PromptRenderer, PromptTemplate
from adprior_runtime.text.json_text import to_json

if TYPE_CHECKING:
    from adprior_build.training.state import StateKeeper  # torch

TRAINING_RECORD = "training.json"
"""The file that tells a checkpoint of ours."""
_CACHED_VALUES = 200_000
"""Every epoch renders the same names again."""
VALIDATION_SALT = "validation"
"""Goes into the hash that tells which users of the others choose the epoch to keep."""

EXAMPLE = options.EXAMPLE
add_arguments = options.add_arguments


def run(args: argparse.Namespace) -> int:
    """Train and write the checkpoint; return the exit code."""
    began = time.monotonic()
    check_options(args)
    catalogue = read_catalogue(args.catalogue)
    if told := catalogue.check_lengths(_max_field_chars(args)):
        print(f"adprior train: {told}", file=sys.stderr)
    split = Split(cut=args.cut, test_share=args.test_share)
    users = read_users(args.events, args.profiles, ColumnMap.load(args.columns))
    read = name_advertisers(users, catalogue.ids, catalogue.names)
    users = split.training_part(read)
    holdout = Split(test_share=args.validation_share, salt=VALIDATION_SALT)
    training = [user for user in users if not holdout.is_test_user(user.user_id)]
    validation = [user for user in users if holdout.is_test_user(user.user_id)]
    for line in describe_data(
        args.events, catalogue, read=read, training=training, validation=validation
    ):
        print(f"adprior train: {line}", flush=True)

    from adprior_build.training.state import kept_state  # noqa: PLC0415  torch

    with (
        kept_state(
            work_directory(args), minutes=args.checkpoint_minutes, restart=args.restart
        ) as keeper,
        replace_directory(args.output, marker=TRAINING_RECORD) as output,
    ):
        position = _train_into(output, args, catalogue, training, validation, keeper)
    print(
        f"adprior train: wrote {args.output} · weights of epoch {position.best_epoch} · "
        f"{describe_time(position, time.monotonic() - began)}"
    )
    return 0


def _train_into(
    output: Path,
    args: argparse.Namespace,
    catalogue: Catalogue,
    training: list[UserHistory],
    validation: list[UserHistory],
    keeper: StateKeeper,
) -> Position:
    from adprior_build.training import loop as training_loop  # noqa: PLC0415  torch, after the input is checked
    from adprior_build.training.checkpoint import open_window  # noqa: PLC0415  torch

    training_loop.prepare(args.seed, args.threads, args.device)
    model, tokenizer, renderer = _starting_point(args, catalogue, training)
    template = renderer.template
    trie, _ = catalogue.build_trie(renderer.name_ids)
    template.require_positions(model.config.get_text_config().max_position_embeddings, trie.depth)
    open_window(model, template.max_prompt_tokens + trie.depth)
    drawn = ExampleSource(
        training,
        renderer,
        trie,
        args.seed,
        names=_most_popular_first(catalogue, training, renderer),
        name_swaps=args.name_swaps,
        first_of_day=args.first_of_day,
    )
    source = RememberedEpochs(drawn)
    if not source.epoch(0):
        raise InvalidInputError(
            f"{args.events}: nothing to train on: of {sum(len(u.events) for u in training)} events "
            f"before the cut, no event names an advertiser of the catalogue"
        )
    checks = ExampleSource(
        validation, renderer, trie, args.seed, first_of_day=args.first_of_day
    ).epoch(0)
    if args.freeze_embeddings:
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            embeddings.requires_grad_(requires_grad=False)
    model, position = _optimise(model, source, checks, renderer.end_id, args, keeper)
    denied = template.denied_keys(profile_keys(training))
    record = describe_training(args, training, validation, position, denied)
    try:
        model.save_pretrained(output)
        _save_tokenizer(tokenizer, template, output)
        (output / "prompt.json").write_text(template.to_json(), encoding="utf-8")
        pa.parquet.write_table(catalogue.table, output / "catalogue.parquet")
        counts = _popularity(catalogue, training, renderer)
        pa.parquet.write_table(counts, output / "popularity.parquet")
        text = to_json(record, indent=2) + "\n"
        (output / TRAINING_RECORD).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InvalidInputError(
            f"{args.output}: cannot be written: {reason}; the finished training is kept in "
            f"{keeper.directory}: make room and run the same command again"
        ) from error
    return position


def _optimise(
    model: Any,
    source: RememberedEpochs,
    checks: Sequence[Example],
    terminator: int,
    args: argparse.Namespace,
    keeper: StateKeeper,
) -> tuple[Any, Position]:
    """Train, from where a killed training was; return a plain model and where it ended."""
    from adprior_build.training import loop as training_loop  # noqa: PLC0415  torch
    from adprior_build.training import lora  # noqa: PLC0415  torch

    adapted = None
    if args.lora_rank is not None:
        shape = lora.Lora(
            rank=args.lora_rank,
            alpha=args.lora_alpha or 2 * args.lora_rank,
            dropout=args.dropout,
            embeddings=args.lora_embeddings,
        )
        adapted = lora.add_lora(model, shape)
    kept = keeper.begin(identify_training(args, examples=source.epoch(0), checks=checks))
    if kept is not None:
        was = Position(**kept.position)
        print(
            f"adprior train: goes on from epoch {was.epoch}, step {was.step}, after "
            f"{was.seconds / 60:.1f} minutes of training; kept in {keeper.directory}",
            flush=True,
        )
    position = training_loop.train(
        model,
        source,
        checks,
        loop_settings(args),
        terminator=terminator,
        start_share=args.start_share,
        keeper=keeper,
        kept=kept,
    )
    return (model if adapted is None else lora.merge_lora(adapted)), position


def _max_field_chars(args: argparse.Namespace) -> int:
    """Return how much of a name the prompts will show, before a model is loaded."""
    start = vars(args)["from"]
    path = args.template or (start and start / "prompt.json")
    if path is None or (path != args.template and not path.is_file()):
        return MAX_FIELD_CHARS
    return PromptTemplate.load(path).max_field_chars


def _starting_point(
    args: argparse.Namespace, catalogue: Catalogue, training: list[UserHistory]
) -> tuple[Any, Tokenizer, PromptRenderer]:
    """Return model, tokenizer and renderer, from a checkpoint or from scratch."""
    template = None if args.template is None else PromptTemplate.load(args.template)
    if args.size is not None:
        return _from_scratch(ModelSize.load(args.size), template, catalogue, training)
    from adprior_build.training.checkpoint import load_checkpoint  # noqa: PLC0415  torch

    model, tokenizer, own = load_checkpoint(vars(args)["from"])
    renderer = PromptRenderer(template or own, tokenizer, cached_values=_CACHED_VALUES)
    return model, tokenizer, renderer


def _from_scratch(
    size: ModelSize,
    template: PromptTemplate | None,
    catalogue: Catalogue,
    training: list[UserHistory],
) -> tuple[Any, Tokenizer, PromptRenderer]:
    template = template or scratch_template(size)
    shown, names = template.shown, [template.shown(name) for name in catalogue.names]
    told = [_without(template.denied_keys(user.profile), user) for user in training]
    tokenizer = scratch_tokenizer(
        map(shown, training_texts(told, names)), size, [*names, *map(shown, profile_texts(told))]
    )
    renderer = PromptRenderer(template, tokenizer, cached_values=_CACHED_VALUES)
    counts = np.array(_popularity(catalogue, training, renderer)["events"]) + 0.5
    marked = Names(
        tokens=[renderer.name_ids(name)[0] for name in names],
        log_shares=np.log(counts / counts.sum()).tolist(),
    )
    return scratch_model(size, tokenizer.get_vocab_size(), marked), tokenizer, renderer


def _without(keys: Collection[str], user: UserHistory) -> UserHistory:
    if not keys:
        return user
    return replace(user, profile={k: v for k, v in user.profile.items() if k not in keys})


def _save_tokenizer(tokenizer: Tokenizer, template: PromptTemplate, output: Path) -> None:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  heavy

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=template.terminator
    ).save_pretrained(output)
    tokenizer.save(str(output / "tokenizer.json"))


def _popularity(
    catalogue: Catalogue, users: list[UserHistory], renderer: PromptRenderer
) -> pa.Table:
    """Count the training events of each advertiser of the catalogue."""
    row_of = catalogue.rows_by_name(renderer.name_ids)
    counts = Counter(row_of(event.advertiser or "") for user in users for event in user.events)
    return pa.table(
        {
            "advertiser_id": pa.array(catalogue.ids, pa.int64()),
            "events": pa.array([counts[row] for row in range(len(catalogue.ids))], pa.int64()),
        }
    )


def _most_popular_first(
    catalogue: Catalogue, users: list[UserHistory], renderer: PromptRenderer
) -> list[str]:
    events = np.array(_popularity(catalogue, users, renderer)["events"])
    return [catalogue.names[row] for row in np.argsort(-events, kind="stable")]
