"""How an artefact was made, as the command that makes it again."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Container
from pathlib import Path
from typing import Any


def describe_command(name: str, args: argparse.Namespace, *, leave_out: Container[str] = ()) -> str:
    """Spell a command as it was given; files by name, wherever they lay.

    Args:
        name: The subcommand.
        args: Its parsed options; those that are None were not given.
        leave_out: Options that change nothing about the result.
    """
    words = ["adprior", name]
    for key, value in vars(args).items():
        if value is None or value is False or key in leave_out:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if value is not True:
            words.append(_spell(value))
    return shlex.join(words)


def _spell(value: Any) -> str:
    return value.name if isinstance(value, Path) else str(value)
