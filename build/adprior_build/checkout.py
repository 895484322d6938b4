"""The checkout that tools write to which render committed files; an installation has none."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["checkout_directory"]


def checkout_directory(name: str) -> Path:
    """Return a directory of the checkout that is the working directory; leave where it is none."""
    if not (Path("pyproject.toml").is_file() and Path(name).is_dir()):
        sys.exit(f"{Path.cwd()}: no {name} here: run this in the root of a checkout of adprior")
    return Path(name)
