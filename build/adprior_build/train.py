"""``adprior train``: fine-tune a causal language model to name the next advertiser."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from tokenizers import Tokenizer

from adprior_build.atomic import replace_directory
from adprior_build.catalogue import Catalogue, even_out, read_catalogue
from adprior_build.event_log import ColumnMap, Split, UserHistory, name_advertisers, read_users
from adprior_build.examples import ExampleSource
from adprior_build.options import day, positive_integer, positive_number, share, whole_number
from adprior_build.provenance import describe_command
from adprior_build.scratch_model import (
    ModelSize,
    scratch_model,
    scratch_template,
    scratch_tokenizer,
    training_texts,
)
from adprior_runtime import __version__
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt import PromptRenderer, PromptTemplate

__all__ = ["EXAMPLE", "TRAINING_RECORD", "VALIDATION_SALT", "add_arguments", "run"]

TRAINING_RECORD = "training.json"
"""The file that tells a checkpoint of ours."""
VALIDATION_SALT = "validation"
"""Goes into the hash that tells which users of the others choose the epoch to keep."""

EXAMPLE = """example:
  adprior train --events events.parquet --profiles profiles.parquet --columns columns.toml \\
    --catalogue catalogue.csv --size size.toml --cut 2022-07-01 --test-share 0.2 --output CKPT"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--events", type=Path, required=True, help="event log (Parquet or CSV)")
    parser.add_argument("--profiles", type=Path, help="user profiles (Parquet or CSV)")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    parser.add_argument("--catalogue", type=Path, required=True, help="advertisers to forecast")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", type=Path, help="Hugging Face checkpoint directory")
    start.add_argument("--size", type=Path, help="train from scratch: the model's size (TOML)")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint directory to write")
    parser.add_argument("--template", type=Path, help="prompt template (JSON)")
    parser.add_argument("--cut", type=day, metavar="DAY", help="train on events before this day")
    for option, kind, default, told in (
        ("--test-share", share, 0.0, "share of users never trained on"),
        ("--validation-share", share, 0.05, "share of the others that choose the epoch to keep"),
        ("--epochs", positive_integer, 10, "passes over the users"),
        ("--batch-size", positive_integer, 16, "examples in a step"),
        ("--learning-rate", positive_number, 1e-3, "its peak, after the warm-up"),
        ("--weight-decay", share, 0.1, "AdamW's"),
        ("--seed", whole_number, 0, "of weights and draws"),
        ("--threads", whole_number, 0, "CPU threads, 0 for all"),
    ):
        parser.add_argument(
            option, type=kind, default=default, metavar="N", help=f"{told} ({default})"
        )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of matrix products; weights stay fp32 (fp32)",
    )


def run(args: argparse.Namespace) -> int:
    """Train and write the checkpoint; return the exit code."""
    catalogue = read_catalogue(args.catalogue)
    split = Split(cut=args.cut, test_share=args.test_share)
    users = read_users(args.events, args.profiles, ColumnMap.load(args.columns))
    users = name_advertisers(users, catalogue.ids, catalogue.names)
    users = split.training_part(users)
    holdout = Split(test_share=args.validation_share, salt=VALIDATION_SALT)
    training = [user for user in users if not holdout.is_test_user(user.user_id)]
    validation = [user for user in users if holdout.is_test_user(user.user_id)]
    with replace_directory(args.output, marker=TRAINING_RECORD) as output:
        _train_into(output, args, catalogue, training, validation)
    print(f"adprior train: wrote {args.output}")
    return 0


def _train_into(
    output: Path,
    args: argparse.Namespace,
    catalogue: Catalogue,
    training: list[UserHistory],
    validation: list[UserHistory],
) -> None:
    from adprior_build import training_loop  # noqa: PLC0415  torch, after the input is checked

    training_loop.prepare(args.seed, args.threads)
    model, tokenizer, template = _starting_point(args, catalogue, training)
    renderer = PromptRenderer(template, tokenizer)
    trie, _ = catalogue.build_trie(renderer.name_ids)
    template.require_positions(model.config.get_text_config().max_position_embeddings, trie.depth)
    source = ExampleSource(training, renderer, trie, args.seed)
    if not source.epoch(0):
        raise InvalidInputError(
            f"{args.events}: nothing to train on: of {sum(len(u.events) for u in training)} events "
            f"before the cut, no event names an advertiser of the catalogue"
        )
    checks = ExampleSource(validation, renderer, trie, args.seed).epoch(0)
    settings = training_loop.Settings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        bf16=args.precision == "bf16",
    )
    losses = training_loop.train(model, source, checks, settings)
    model.save_pretrained(output)
    _save_tokenizer(tokenizer, template, output)
    (output / "prompt.json").write_text(template.to_json(), encoding="utf-8")
    pa.parquet.write_table(catalogue.table, output / "catalogue.parquet")
    pa.parquet.write_table(_popularity(catalogue, training), output / "popularity.parquet")
    record = _record(args, training, validation, losses)
    (output / TRAINING_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _starting_point(
    args: argparse.Namespace, catalogue: Catalogue, training: list[UserHistory]
) -> tuple[Any, Tokenizer, PromptTemplate]:
    """Return model, tokenizer and template, from a checkpoint or from scratch."""
    if args.size is not None:
        size = ModelSize.load(args.size)
        tokenizer = scratch_tokenizer(training_texts(training, catalogue.names), size)
        template = scratch_template(size)
        model = scratch_model(size, tokenizer.get_vocab_size())
    else:
        from adprior_build.checkpoint import load_checkpoint  # noqa: PLC0415  torch

        model, tokenizer, template = load_checkpoint(vars(args)["from"])
    if args.template is not None:
        template = PromptTemplate.load(args.template)
    return model, tokenizer, template


def _save_tokenizer(tokenizer: Tokenizer, template: PromptTemplate, output: Path) -> None:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  heavy

    tokenizer.encode_special_tokens = False
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=template.terminator
    ).save_pretrained(output)
    tokenizer.save(str(output / "tokenizer.json"))


def _popularity(catalogue: Catalogue, users: list[UserHistory]) -> pa.Table:
    """Count the training events of each advertiser of the catalogue."""
    rows = catalogue.row_by_name()
    counts = Counter(
        rows.get(even_out(event.advertiser or "")) for user in users for event in user.events
    )
    return pa.table(
        {
            "advertiser_id": pa.array(catalogue.ids, pa.int64()),
            "events": pa.array([counts[row] for row in range(len(catalogue.ids))], pa.int64()),
        }
    )


def _record(
    args: argparse.Namespace,
    training: list[UserHistory],
    validation: list[UserHistory],
    losses: list[dict[str, float]],
) -> dict[str, Any]:
    inputs = {
        name: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name in ("events", "profiles", "columns", "catalogue", "size", "template")
        if (path := getattr(args, name)) is not None
    }
    settings = {
        name: getattr(args, name)
        for name in ("epochs", "batch_size", "learning_rate", "weight_decay", "precision", "seed")
    }
    return {
        "adprior_version": __version__,
        "command": describe_command("train", args, leave_out={"threads"}),
        "inputs": inputs,
        "start": vars(args)["from"].name if vars(args)["from"] else "scratch",
        "settings": settings,
        "split": {
            "cut": args.cut.isoformat() if args.cut else None,
            "test_share": args.test_share,
            "salt": Split().salt,
            "validation_share": args.validation_share,
        },
        "training_users": len(training),
        "validation_users": len(validation),
        "training_events": sum(len(user.events) for user in training),
        "losses": losses,
    }
