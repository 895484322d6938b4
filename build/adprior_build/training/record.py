"""What a checkpoint tells of its training, and what a kept state must agree with."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_build.provenance import describe_command
from adprior_build.training.examples import Example
from adprior_build.training.options import FREE, loop_settings
from adprior_build.training.position import Position
from adprior_runtime import __version__
from adprior_runtime.bundle import TRAINED_PROFILE_KEYS, hash_file

RUN_KEY = "run"
"""Where the record keeps what another run of the same command would not give again."""

_INPUTS = ("events", "profiles", "columns", "catalogue", "size", "template")
_OFF = ("patience", "dropout", "label_smoothing", "name_swaps", "start_share", "log_q")
"""Options that a command is recorded without where they are 0."""
_ALSO_SETTINGS = (
    "name_swaps",
    "start_share",
    "first_of_day",
    "freeze_embeddings",
    "lora_rank",
    "lora_alpha",
    "lora_embeddings",
)
"""Beside the loop's settings."""


def describe_training(
    args: argparse.Namespace,
    training: Sequence[UserHistory],
    validation: Sequence[UserHistory],
    position: Position,
    denied_keys: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the record that goes with a checkpoint.

    Args:
        args: The command's options.
        training: The users trained on.
        validation: Those that chose the epoch.
        position: Where the training ended.
        denied_keys: Those of the profiles' keys that no prompt showed.
    """
    start = vars(args)["from"]
    settings: dict[str, Any] = asdict(loop_settings(args))
    settings["precision"] = "bf16" if settings.pop("bf16") else "fp32"
    for name in _ALSO_SETTINGS:
        settings[name] = getattr(args, name)
    unsaid = FREE - {"output", "start_share"}
    off = {name for name in _OFF if not getattr(args, name)}
    off |= {"device"} if args.device == "cpu" else set()
    return {
        "adprior_version": __version__,
        "command": describe_command("train", args, leave_out=unsaid | off),
        "inputs": {
            name: {"file": path.name, "sha256": digest}
            for name, (path, digest) in _hash_inputs(args).items()
        },
        "start": start.name if start else "scratch",
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
        TRAINED_PROFILE_KEYS: sorted(profile_keys(training) - set(denied_keys)),
        "tokens": position.tokens,
        "best_epoch": position.best_epoch,
        "losses": position.rows,
        RUN_KEY: {"seconds": round(position.seconds, 3), "resumed": position.resumed},
    }


def profile_keys(users: Sequence[UserHistory]) -> set[str]:
    """Return the keys that any user's profile has."""
    return {key for user in users for key in user.profile}


def identify_training(
    args: argparse.Namespace, *, examples: Sequence[Example], checks: Sequence[Example]
) -> dict[str, Any]:
    """Return what makes a training this one: two with the same take the same steps.

    Args:
        args: The command's options; files count by what they hold, not by where they are.
        examples: Of the first epoch: they tell template, tokenizer and code apart as well.
        checks: The validation users' examples.
    """
    files = {*_INPUTS, "from"}
    settings = {
        name: value if value is None or isinstance(value, int | float | bool) else str(value)
        for name, value in vars(args).items()
        if name not in FREE and name not in files
    }
    identity = {name: digest for name, (_, digest) in _hash_inputs(args).items()}
    if (start := vars(args)["from"]) is not None:
        identity["from"] = _hash_checkpoint(start)
    identity["examples"] = _hash_examples(examples)
    identity["validation examples"] = _hash_examples(checks)
    return {"adprior_version": __version__} | settings | identity


def _hash_inputs(args: argparse.Namespace) -> dict[str, tuple[Path, str]]:
    return {
        name: (path, hash_file(path))
        for name in _INPUTS
        if (path := getattr(args, name)) is not None
    }


def _hash_checkpoint(directory: Path) -> str:
    total = hashlib.sha256()
    for path in [directory / "config.json", *sorted(directory.glob("*.safetensors"))]:
        total.update(f"{path.name} {hash_file(path)}\n".encode())
    return total.hexdigest()


def _hash_examples(examples: Sequence[Example]) -> str:
    total = hashlib.sha256()
    for example in examples:
        for values in (example.token_ids, example.target_positions):
            total.update(np.asarray([len(values), *values], dtype=np.int64).tobytes())
    return total.hexdigest()
