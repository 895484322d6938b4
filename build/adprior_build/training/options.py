"""The options of `adprior train`, in groups, and what they say about a training."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adprior_build.training.settings import Settings
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import (
    day,
    number_from_zero,
    positive_integer,
    positive_number,
    share,
    whole_number,
)

EXAMPLE = """examples:
  adprior train --events events.parquet --profiles profiles.parquet --columns columns.toml \\
    --catalogue catalogue.csv --size size.toml --cut 2022-07-01 --test-share 0.2 --output CKPT
  adprior train ... --from HF_DIRECTORY --lora-rank 16 --learning-rate 2e-4 --output CKPT

A training that was killed goes on where it was when the same command is run again."""

FREE = frozenset({"checkpoint_minutes", "output", "restart", "start_share", "threads", "work"})
"""Options that may differ when a killed training goes on: they change nothing about its course."""

_DEFAULT_EPOCHS = 10

_Option = tuple[str, Callable[[str], Any], Any, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    _add_data(parser.add_argument_group("data"))
    model = parser.add_argument_group("model")
    start = model.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", type=Path, help="Hugging Face checkpoint directory")
    start.add_argument("--size", type=Path, help="train from scratch: the model's size (TOML)")
    model.add_argument("--output", type=Path, required=True, help="checkpoint directory to write")
    epochs = f"passes over the users ({_DEFAULT_EPOCHS}; with --minutes: any number)"
    minutes = (
        "of training and validation; reading before and writing after come on top; the learning "
        "rate falls with the time (no limit)"
    )
    _add(
        parser.add_argument_group("length (the first of these that is reached ends it)"),
        ("--epochs", positive_integer, None, epochs),
        ("--minutes", positive_number, None, minutes),
        ("--patience", whole_number, 0, "epochs without a better validation loss, 0 for any"),
    )
    _add(
        parser.add_argument_group("optimisation"),
        ("--batch-size", positive_integer, 16, "examples in a step"),
        ("--learning-rate", positive_number, 1e-3, "its peak, after the warm-up"),
        ("--weight-decay", share, 0.1, "AdamW's, on matrices"),
        ("--seed", whole_number, 0, "of weights and draws"),
    )
    _add(
        parser.add_argument_group("regularisation and loss"),
        ("--dropout", share, 0.0, "of attention weights and of what attention and MLP add"),
        ("--label-smoothing", share, 0.0, "share of a target spread over the vocabulary"),
        (
            "--name-swaps",
            share,
            0.0,
            "share of examples with names swapped for others about as popular",
        ),
        (
            "--start-share",
            share,
            0.0,
            "share of the first weights in those that are kept (WiSE-FT)",
        ),
        ("--log-q", number_from_zero, 0.0, "strength of the correction for popular names"),
    )
    loss = parser.add_argument_group("what is learnt")
    loss.add_argument(
        "--first-of-day",
        action="store_true",
        help="loss on each day's first advertiser alone, from earlier days (on every advertiser)",
    )
    loss.add_argument(
        "--freeze-embeddings", action="store_true", help="leave embeddings as they begin"
    )
    lora = parser.add_argument_group("LoRA (with --from; merged into the weights at the end)")
    _add(
        lora,
        ("--lora-rank", positive_integer, None, "train corrections of this rank (all weights)"),
        ("--lora-alpha", positive_number, None, "their scale times the rank (twice the rank)"),
    )
    lora.add_argument("--lora-embeddings", action="store_true", help="train embeddings as well")
    _add_machine(parser.add_argument_group("machine, and going on after a kill"))


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--events",
        type=Path,
        required=True,
        help="event log (Parquet or CSV); a time without a zone is UTC",
    )
    group.add_argument("--profiles", type=Path, help="user profiles (Parquet or CSV)")
    group.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    group.add_argument("--catalogue", type=Path, required=True, help="advertisers to forecast")
    group.add_argument("--template", type=Path, help="prompt template (JSON)")
    group.add_argument("--cut", type=day, metavar="DAY", help="train on events before this day")
    _add(
        group,
        ("--test-share", share, 0.0, "share of users never trained on"),
        ("--validation-share", share, 0.05, "share of the others that choose the epoch to keep"),
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="what computes (cpu)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of matrix products; weights stay fp32 (fp32)",
    )
    _add(
        group,
        ("--threads", whole_number, 0, "CPU threads, 0 for all that the process may use"),
        ("--checkpoint-minutes", positive_number, 3.0, "keep the state as often, and each epoch"),
    )
    group.add_argument(
        "--work", type=Path, metavar="DIR", help="where the state is kept (OUTPUT.partial)"
    )
    group.add_argument("--restart", action="store_true", help="forget a kept state")


def _add(group: argparse._ArgumentGroup, *options: _Option) -> None:
    for option, kind, default, told in options:
        shown = told if default is None else f"{told} ({default:g})"
        group.add_argument(option, type=kind, default=default, metavar="N", help=shown)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        InvalidInputError: Saying which.
    """
    if args.lora_rank is None and (args.lora_alpha is not None or args.lora_embeddings):
        raise InvalidInputError("--lora-alpha and --lora-embeddings need --lora-rank")
    if args.freeze_embeddings and args.lora_rank is not None:
        raise InvalidInputError(
            "--freeze-embeddings is what --lora-rank does without --lora-embeddings"
        )
    if args.lora_rank is not None and args.size is not None:
        raise InvalidInputError(
            "--lora-rank needs --from: from scratch there is nothing to correct"
        )
    if args.patience and not args.validation_share:
        raise InvalidInputError("--patience needs validation users (--validation-share)")
    work, output = work_directory(args).absolute(), args.output.absolute()
    if work == output or work in output.parents or output in work.parents:
        raise InvalidInputError("--work and --output must not lie in one another")


def work_directory(args: argparse.Namespace) -> Path:
    """Return where the training's state is kept."""
    if args.work is not None:
        return Path(args.work)
    resolved: Path = args.output.resolve()
    return resolved.with_name(resolved.name + ".partial")


def loop_settings(args: argparse.Namespace) -> Settings:
    """Return what the options tell the loop."""
    epochs = args.epochs
    if epochs is None and args.minutes is None:
        epochs = _DEFAULT_EPOCHS
    return Settings(
        epochs=epochs,
        minutes=args.minutes,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        bf16=args.precision == "bf16",
        patience=args.patience,
        label_smoothing=args.label_smoothing,
        log_q=args.log_q,
        dropout=args.dropout,
        seed=args.seed,
        device=args.device,
    )
