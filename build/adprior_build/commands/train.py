"""``adprior train``: fine-tune a causal language model on event logs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.checkpoints.adapter import ADAPTER_CONFIG, BASE_FILE, Lora
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import name_advertisers, read_users
from adprior_build.data.split import VALIDATION_SALT, Split
from adprior_build.training.interest_examples import require_interest_tail
from adprior_build.training.progress import describe_time, draw_losses
from adprior_build.training.record import TRAINING_RECORD
from adprior_build.training.settings import (
    DEFAULT_EPOCHS,
    DEFAULT_VOCABULARY,
    FULL_LEARNING_RATE,
    LORA_LEARNING_RATE,
    work_directory,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_directory
from adprior_runtime.prompt.template import MAX_FIELD_CHARS, PromptTemplate
from adprior_runtime.terminal.options import (
    day,
    positive_integer,
    positive_number,
    share,
    whole_number,
)

EXAMPLE = """examples:
  adprior train --events events.parquet --profiles profiles.parquet --columns columns.toml \\
    --catalogue catalogue.csv --cut 2022-07-01 --test-share 0.2 \\
    --from CHECKPOINT --lora-rank 16 --upper-layers 9 --output ADAPTER
  adprior train ... --from CHECKPOINT --device cuda --precision bf16 --output CHECKPOINT

To resume a killed training, run the same command again."""

_Option = tuple[str, Callable[[str], Any], Any, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    _add_data(parser)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--from",
        type=Path,
        required=True,
        metavar="START",
        help="model to fine-tune: a Hugging Face directory, a .gguf file, a package, or an adapter "
        "of adprior, which is continued",
    )
    model.add_argument(
        "--trim-vocabulary",
        type=positive_integer,
        nargs="?",
        const=DEFAULT_VOCABULARY,
        metavar="N",
        help="keep the tokens that catalogue, log and template need, and frequent ones of the log "
        f"up to N ({DEFAULT_VOCABULARY}; without the option, all tokens are kept)",
    )
    model.add_argument(
        "--output", type=Path, required=True, help="directory to write: a checkpoint or an adapter"
    )
    model.add_argument(
        "--overwrite", action="store_true", help="replace a finished training in --output"
    )
    epochs = f"passes over the events ({DEFAULT_EPOCHS}; with --minutes: no limit)"
    minutes = (
        "minutes of training and validation, without reading and writing; the learning rate "
        "follows the time (no limit)"
    )
    patience = "stop after N epochs without a better validation loss, 0 for never"
    length = parser.add_argument_group("length (the first limit that is reached ends the training)")
    _add(
        length.add_argument,
        ("--epochs", positive_integer, None, epochs),
        ("--minutes", positive_number, None, minutes),
        ("--patience", whole_number, 0, patience),
    )
    rate = (
        f"peak learning rate, after the warm-up ({FULL_LEARNING_RATE:g}; with --lora-rank: "
        f"{LORA_LEARNING_RATE:g})"
    )
    _add(
        parser.add_argument_group("optimisation").add_argument,
        ("--batch-size", positive_integer, 8, "windows per step"),
        ("--learning-rate", positive_number, None, rate),
        ("--weight-decay", share, 0.1, "AdamW's weight decay, applied to matrices"),
        ("--seed", whole_number, 0, "seed of the weights and of all draws"),
    )
    lora = parser.add_argument_group("LoRA, and which layers are trained")
    upper = "train only the last N layers; what the others compute is kept on disk (all)"
    _add(
        lora.add_argument,
        ("--lora-rank", positive_integer, None, "train corrections of rank N (train all weights)"),
        ("--lora-alpha", positive_number, None, "scale the corrections by N / rank (2 * rank)"),
        ("--dropout", share, 0.0, "share of the corrections' inputs to drop"),
        ("--upper-layers", positive_integer, None, upper),
    )
    lora.add_argument(
        "--merge",
        action="store_true",
        help="write a checkpoint with the corrections merged into its weights (write an adapter)",
    )
    _add_machine(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--events",
        type=Path,
        required=True,
        help="event log (Parquet or CSV); times without a zone are UTC",
    )
    group.add_argument("--profiles", type=Path, help="user profiles (Parquet or CSV)")
    group.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    group.add_argument(
        "--catalogue", type=Path, required=True, help="advertisers to forecast (Parquet or CSV)"
    )
    group.add_argument(
        "--interests",
        type=Path,
        help="interests to forecast too, from adprior catalogue --interests; the prompt template "
        "needs an interest_tail (none)",
    )
    group.add_argument(
        "--template", type=Path, help="JSON prompt template (the checkpoint's, or a built-in one)"
    )
    group.add_argument(
        "--cut", type=day, metavar="DAY", help="train on events before this day (all events)"
    )
    _add(
        group.add_argument,
        ("--test-share", share, 0.0, "share of users that are never trained on"),
        (
            "--validation-share",
            share,
            0.05,
            "share of the other users, to choose the best epoch",
        ),
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine and resuming")
    group.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device to train on (cpu)"
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="fp32",
        help="precision of matrix products; auto: bf16 where the device has instructions for it; "
        "weights stay fp32 (fp32)",
    )
    group.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="keep less memory and compute activations twice, a third slower",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the layers: takes about a minute, then a step takes 0.7 times as long on a "
        "CPU; needs a C++ compiler",
    )
    _add(
        group.add_argument,
        ("--threads", whole_number, 0, "CPU threads, 0 for all that the process may use"),
        (
            "--checkpoint-minutes",
            positive_number,
            3.0,
            "minutes between saves of the state, which is also saved after each epoch",
        ),
    )
    group.add_argument(
        "--work", type=Path, metavar="DIR", help="directory of the state (OUTPUT.partial)"
    )
    group.add_argument("--restart", action="store_true", help="discard a saved state")


def _add(add_argument: Callable[..., Any], *options: _Option) -> None:
    for option, kind, default, text in options:
        shown = text if default is None else f"{text} ({default:g})"
        add_argument(option, type=kind, default=default, metavar="N", help=shown)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        InvalidInputError: The message names the options.
    """
    if args.lora_rank is None and (args.lora_alpha is not None or args.dropout or args.merge):
        raise InvalidInputError("--lora-alpha, --dropout and --merge need --lora-rank")
    if (args.output / TRAINING_RECORD).is_file() and not args.overwrite:
        raise InvalidInputError(
            f"{args.output}: holds a finished training; choose another --output, or give "
            "--overwrite to replace it"
        )
    compiler = os.environ.get("CXX", "g++")
    if args.compile and shutil.which(compiler) is None:
        raise InvalidInputError(
            f"--compile: torch needs a C++ compiler and finds no {compiler}; install one (Debian, "
            "Ubuntu: package g++) or leave the option out"
        )
    if args.patience and not args.validation_share:
        raise InvalidInputError("--patience needs validation users (--validation-share)")
    work, output = work_directory(args).absolute(), args.output.absolute()
    if work == output or work in output.parents or output in work.parents:
        raise InvalidInputError("--work and --output must not contain each other")


def run(args: argparse.Namespace) -> int:
    """Train and write the checkpoint; return the exit code."""
    began = time.monotonic()
    _continue_adapter(args)
    check_options(args)
    catalogue = read_catalogue(args.catalogue)
    template = _read_template(args)
    interests = None
    if args.interests is not None:
        require_interest_tail(template, args.interests)
        interests = read_catalogue(args.interests, "interest")
    for each in filter(None, (catalogue, interests)):
        if note := each.check_lengths(template.max_field_chars if template else MAX_FIELD_CHARS):
            print(f"adprior train: {note}", file=sys.stderr)
    split = Split(cut=args.cut, test_share=args.test_share)
    users = read_users(args.events, args.profiles, ColumnMap.load(args.columns))
    read = name_advertisers(users, catalogue.ids, catalogue.names)
    users = split.training_part(read)
    holdout = Split(test_share=args.validation_share, salt=VALIDATION_SALT)

    from adprior_build.training.drawing import TrainingData  # noqa: PLC0415  torch
    from adprior_build.training.fine_tuning import fine_tune  # noqa: PLC0415  torch
    from adprior_build.training.precision import choose_precision  # noqa: PLC0415  torch
    from adprior_build.training.state import kept_state  # noqa: PLC0415  torch

    args.precision = choose_precision(args.precision, args.device)
    data = TrainingData(
        catalogue=catalogue,
        interests=interests,
        read=read,
        training=[user for user in users if not holdout.is_test_user(user.user_id)],
        validation=[user for user in users if holdout.is_test_user(user.user_id)],
    )
    with (
        kept_state(
            work_directory(args), minutes=args.checkpoint_minutes, restart=args.restart
        ) as keeper,
        replace_directory(args.output, marker=TRAINING_RECORD) as output,
    ):
        position = fine_tune(output, args, data, keeper)
    if drawn := draw_losses(position):
        print(f"adprior train: {drawn}")
    print(
        f"adprior train: wrote {args.output} · weights of epoch {position.best_epoch} · "
        f"{describe_time(position, time.monotonic() - began)}"
    )
    return 0


def _continue_adapter(args: argparse.Namespace) -> None:
    """Give an adapter's training the adapter's rank and scale."""
    start = vars(args)["from"]
    if not (start / BASE_FILE).is_file():
        return
    lora = Lora.load(start / ADAPTER_CONFIG)
    if args.lora_rank not in (None, lora.rank) or args.lora_alpha not in (None, lora.alpha):
        raise InvalidInputError(
            f"{start}: has rank {lora.rank} and alpha {lora.alpha:g}, which training continues; "
            "leave --lora-rank and --lora-alpha out"
        )
    args.lora_rank, args.lora_alpha = lora.rank, lora.alpha


def _read_template(args: argparse.Namespace) -> PromptTemplate | None:
    """Return the template of the training without loading a model; None for the plain one."""
    start = vars(args)["from"]
    path = args.template or start / "prompt.json"
    if path != args.template and not path.is_file():
        return None
    return PromptTemplate.load(path)
