"""Runs `adprior` as a process of its own, and compares what it wrote."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from adprior_runtime.cli import main; sys.exit(main())",
]


def hash_directory(directory: Path) -> str:
    """Hash names and contents, without the run's duration in ``training.json``."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "training.json":
                content = json.dumps(json.loads(content) | {"run": None}).encode()
            total.update(str(path.relative_to(directory)).encode() + content)
    return total.hexdigest()
