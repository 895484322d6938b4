"""Records the command that made an artefact, so that it can be made again."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Container
from pathlib import Path
from typing import Final

RUN_KEY: Final = "run"
"""The part of a training record that differs between runs of the same command."""


def describe_command(name: str, args: argparse.Namespace, *, leave_out: Container[str] = ()) -> str:
    """Return the command line of parsed options, with file names instead of paths.

    Args:
        name: The subcommand.
        args: Its parsed options; those that are None were not given.
        leave_out: Options that do not change the result.
    """
    words = ["adprior", name]
    for key, value in vars(args).items():
        if value is None or value is False or key in leave_out:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if value is not True:
            words.append(value.name if isinstance(value, Path) else str(value))
    return shlex.join(words)
