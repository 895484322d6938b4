"""Fine-tuning as a whole: from users and a catalogue to a checkpoint or an adapter."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from adprior_build.checkpoints.adapter import write_adapter
from adprior_build.checkpoints.checkpoint import describe_base, find_source
from adprior_build.data.log_summary import describe_training_data
from adprior_build.training.checkpoint import compile_layers, open_window
from adprior_build.training.drawing import TrainingData, draw_windows
from adprior_build.training.interest_examples import InterestExamples
from adprior_build.training.loop import prepare, train
from adprior_build.training.lora import add_lora, load_corrections, read_corrections
from adprior_build.training.objectives import make_objective
from adprior_build.training.progress import Position
from adprior_build.training.record import (
    TRAINING_RECORD,
    count_interests,
    describe_training,
    identify_training,
    profile_keys,
)
from adprior_build.training.settings import Settings
from adprior_build.training.starting_point import StartingPoint
from adprior_build.training.state import StateKeeper
from adprior_build.training.upper_layers import (
    freeze_lower_layers,
)
from adprior_build.training.windows import EpochWindows, Window
from adprior_runtime.bundle import CATALOGUE_FILE, INTERESTS_FILE
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from adprior_runtime.text.json_text import to_json

_CACHED_VALUES: Final = 200_000
"""Size of the renderer's cache: every epoch renders the same names again."""


def fine_tune(
    output: Path, args: argparse.Namespace, data: TrainingData, keeper: StateKeeper
) -> Position:
    """Train, and write the checkpoint or the adapter to ``output``.

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
    start = _open_start(args, data)
    model, template = start.build_model(), start.template
    renderer = PromptRenderer(template, start.tokenizer, cached_values=_CACHED_VALUES)
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
    interests = None if data.interests is None else InterestExamples(data.interests, renderer)
    longest = max(trie.depth, interests.depth if interests else 0)
    template.require_positions(model.config.get_text_config().max_position_embeddings, longest)
    open_window(model, template.max_prompt_tokens + longest)
    counts = data.catalogue.count_events(data.training, renderer.name_ids)
    epoch_windows, checks = draw_windows(args, data, renderer, trie, interests)
    taught = count_interests(data.interests, epoch_windows(0), checks)
    if taught:
        print(
            f"adprior train: {taught['training_examples']:,} windows end with an interest, and "
            f"{taught['validation_examples']:,} of the validation users'",
            flush=True,
        )
    adapted = _choose_weights(model, start, args)
    position = _optimise(model, epoch_windows, checks, args, keeper)
    denied = template.denied_keys(profile_keys(data.training))
    record = describe_training(args, data.training, data.validation, position, denied)
    record |= {"interests": taught} if taught else {}
    try:
        if adapted is None or args.merge:
            plain = model if adapted is None else adapted.merge_and_unload()
            plain.save_pretrained(output)
        else:
            lora, tensors = read_corrections(adapted)
            base = describe_base(start.base, args.output)
            write_adapter(output, tensors, lora, base, start.vocabulary)
            model.config.save_pretrained(output)
        for weights in output.glob("*.safetensors"):  # they are written as private files
            weights.chmod(output.stat().st_mode & 0o666)
        _write_rest(output, start.tokenizer, template, data, counts, record)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InvalidInputError(
            f"{args.output}: cannot be written: {reason}; the finished training is kept in "
            f"{keeper.directory}: make room and run the same command again"
        ) from error
    return position


def _open_start(args: argparse.Namespace, data: TrainingData) -> StartingPoint:
    """Open the checkpoint, and trim its vocabulary if that was asked for."""
    template = None if args.template is None else PromptTemplate.load(args.template)
    print(f"adprior train: reading {vars(args)['from']}", flush=True)
    start = StartingPoint.open(find_source(vars(args)["from"]), template)
    if args.trim_vocabulary is None:
        return start
    before = start.tokenizer.get_vocab_size()
    catalogues = [each for each in (data.catalogue, data.interests) if each is not None]
    start = start.trim(args.trim_vocabulary, catalogues, data.training)
    after = start.tokenizer.get_vocab_size()
    print(f"adprior train: the vocabulary has {after:,} of {before:,} tokens", flush=True)
    return start


def _choose_weights(model: Any, start: StartingPoint, args: argparse.Namespace) -> Any:
    """Let only the weights that the options name be trained; return the peft model, if any."""
    adapted = None
    if args.lora_rank is not None:
        adapted = add_lora(
            model,
            rank=args.lora_rank,
            alpha=args.lora_alpha or 2 * args.lora_rank,
            dropout=args.dropout,
            upper_layers=args.upper_layers,
        )
        load_corrections(adapted, start.corrections)
    elif args.upper_layers is not None:
        freeze_lower_layers(model, args.upper_layers)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if args.compile:
        compile_layers(model)
    return adapted


def _optimise(
    model: Any,
    epoch_windows: EpochWindows,
    checks: Sequence[Window],
    args: argparse.Namespace,
    keeper: StateKeeper,
) -> Position:
    """Train ``model``, resuming from a kept state; return the final position."""
    settings = Settings.of(args)
    identity = identify_training(args, windows=epoch_windows(0), checks=checks)
    kept = keeper.begin(identity)
    if kept is not None:
        was = Position.of(kept.position)
        print(
            f"adprior train: resumes from epoch {was.epoch}, step {was.step}, after "
            f"{was.seconds / 60:.1f} minutes of training; kept in {keeper.directory}",
            flush=True,
        )
    windows = [*epoch_windows(0), *checks]
    objective, split = make_objective(model, windows, args, settings, identity, keeper.directory)
    return train(
        model,
        epoch_windows,
        checks,
        settings,
        split=split,
        objective=objective,
        keeper=keeper,
        kept=kept,
    )


def _write_rest(
    output: Path,
    tokenizer: Tokenizer,
    template: PromptTemplate,
    data: TrainingData,
    event_counts: Sequence[int],
    record: dict[str, Any],
) -> None:
    """Write everything in a checkpoint but the model."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=template.terminator
    ).save_pretrained(output)
    tokenizer.save(str(output / "tokenizer.json"), pretty=False)
    (output / "prompt.json").write_text(template.to_json(), encoding="utf-8")
    pa.parquet.write_table(data.catalogue.table, output / CATALOGUE_FILE)
    if data.interests is not None:
        pa.parquet.write_table(data.interests.table, output / INTERESTS_FILE)
    popularity = {
        "advertiser_id": pa.array(data.catalogue.ids, pa.int64()),
        "events": pa.array(event_counts, pa.int64()),
    }
    pa.parquet.write_table(pa.table(popularity), output / "popularity.parquet")
    text = to_json(record, indent=2) + "\n"
    (output / TRAINING_RECORD).write_text(text, encoding="utf-8")
