"""Options that several benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from adprior_runtime.terminal.options import positive_integer


def add_counts(parser: argparse.ArgumentParser, *counts: tuple[str, int, str]) -> None:
    """Declare options that take a positive number; each has a default and a help text."""
    for option, default, text in counts:
        parser.add_argument(
            option, type=positive_integer, default=default, metavar="N", help=f"{text} ({default})"
        )


def add_training_log(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Declare the bundle, the files of the log that it was trained on, and ``--other-log``."""
    add = parser.add_argument
    add("--bundle", type=Path, required=required, help="bundle that makes the forecasts")
    add("--events", type=Path, required=required, help="event log that the bundle was trained on")
    add("--profiles", type=Path, help="user profiles")
    add("--columns", type=Path, required=required, help="column map (TOML)")
    add(
        "--other-log",
        action="store_true",
        help="accept a log that the bundle was not trained on; the output says so",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """Declare ``--work``."""
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="directory for intermediate results until the output is complete; a killed run "
        "continues from them (OUTPUT.partial)",
    )
