"""Files that appear whole or not at all, and survive a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_durable(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of ``path`` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_durable_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with open_durable(path) as file:
        file.write(text.encode())
