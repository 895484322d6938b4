"""The command-line option that names a version."""

from __future__ import annotations

import argparse

from adprior_runtime.delivery.tag import LATEST


def add_version_argument(parser: argparse.ArgumentParser, flag: str, before: str = "") -> None:
    """Add the option; ``before`` begins its help text."""
    parser.add_argument(
        flag,
        default=LATEST,
        metavar="VERSION",
        help=f"{before}a tag, the beginning of a version's id, its bundle's id, or `previous` "
        "(default: %(default)s)",
    )
