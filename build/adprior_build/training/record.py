"""The record of a training in its checkpoint, and the identity that a resumed training needs."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.checkpoints.checkpoint import find_source, hash_checkpoint
from adprior_build.data.event_log import UserHistory
from adprior_build.data.split import Split
from adprior_build.provenance import RUN_KEY, describe_command
from adprior_build.training.progress import Position
from adprior_build.training.settings import RESUME_FREELY, Settings
from adprior_build.training.windows import Window
from adprior_runtime import __version__
from adprior_runtime.bundle import TRAINED_PROFILE_KEYS, hash_file

TRAINING_RECORD: Final = "training.json"
"""The record's file; a directory that has it is a checkpoint of `adprior train`."""

_INPUTS: Final = (
    "events",
    "profiles",
    "columns",
    "catalogue",
    "interests",
    "template",
)
_RECORDED_IF_USED: Final = ("patience", "dropout")
"""Options that the recorded command shows only if they are not 0."""
_OTHER_SETTINGS: Final = (
    "lora_rank",
    "lora_alpha",
    "dropout",
    "upper_layers",
    "trim_vocabulary",
)
"""Recorded beside the loop's settings."""


def describe_training(
    args: argparse.Namespace,
    training: Sequence[UserHistory],
    validation: Sequence[UserHistory],
    position: Position,
    denied_keys: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the record of a checkpoint.

    Args:
        args: The command's options.
        training: The training users.
        validation: The users who chose the epoch.
        position: The final position.
        denied_keys: Keys of the profiles that no prompt showed.
    """
    start = vars(args)["from"]
    settings: dict[str, Any] = asdict(Settings.of(args))
    settings["precision"] = "bf16" if settings.pop("bf16") else "fp32"
    settings |= {name: getattr(args, name) for name in _OTHER_SETTINGS}
    hidden = RESUME_FREELY - {"merge", "output"}
    hidden |= {name for name in _RECORDED_IF_USED if not getattr(args, name)}
    hidden |= {"device"} if args.device == "cpu" else set()
    return {
        "adprior_version": __version__,
        "command": describe_command("train", args, leave_out=hidden),
        "inputs": {
            name: {"file": path.name, "sha256": digest}
            for name, (path, digest) in _hash_inputs(args).items()
        },
        "start": start.name,
        "start_sha256": hash_checkpoint(find_source(start)),
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
        "loss_curve": position.curve.to_json(),
        RUN_KEY: {"seconds": round(position.seconds, 3), "resumed": position.resumed},
    }


def profile_keys(users: Sequence[UserHistory]) -> set[str]:
    """Return the keys that any user's profile has."""
    return {key for user in users for key in user.profile}


def count_interests(
    interests: Catalogue | None, windows: Sequence[Window], checks: Sequence[Window]
) -> dict[str, int]:
    """Return the numbers of interests and of examples; nothing without interests.

    Args:
        interests: Their catalogue.
        windows: The first epoch's.
        checks: The validation users' windows.
    """
    if interests is None:
        return {}
    return {
        "catalogue": len(interests.ids),
        "training_examples": sum(window.interests for window in windows),
        "validation_examples": sum(window.interests for window in checks),
    }


def identify_training(
    args: argparse.Namespace, *, windows: Sequence[Window], checks: Sequence[Window]
) -> dict[str, Any]:
    """Return what identifies a training: two with the same identity take the same steps.

    Args:
        args: The command's options; files count by their content, not by their place.
        windows: The first epoch's: they also depend on template, tokenizer and code.
        checks: The validation users' windows.
    """
    files = {*_INPUTS, "from"}
    settings = {
        name: value if value is None or isinstance(value, int | float | bool) else str(value)
        for name, value in vars(args).items()
        if name not in RESUME_FREELY and name not in files
    }
    identity = {name: digest for name, (_, digest) in _hash_inputs(args).items()}
    identity["from"] = hash_checkpoint(find_source(vars(args)["from"]))
    identity["windows"] = _hash_windows(windows)
    identity["validation windows"] = _hash_windows(checks)
    return {"adprior_version": __version__} | settings | identity


def _hash_inputs(args: argparse.Namespace) -> dict[str, tuple[Path, str]]:
    return {
        name: (path, hash_file(path))
        for name in _INPUTS
        if (path := getattr(args, name)) is not None
    }


def _hash_windows(windows: Sequence[Window]) -> str:
    total = hashlib.sha256()
    for window in windows:
        for values in (window.token_ids, window.targets):
            total.update(len(values).to_bytes(8, "little"))
            total.update(values.tobytes())
    return total.hexdigest()
