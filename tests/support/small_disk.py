"""A file system that is soon full."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[], None]]:
    """Mount a file system of that size; yield a function to run before the command.

    Only root can mount one. Without root, the function limits the size of the command's files.
    """
    place.mkdir(exist_ok=True)
    options = f"size={max(4096, size)}"  # 0 would mean no limit
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() == 0 and not subprocess.run(mount, capture_output=True, check=False).returncode:
        try:
            yield lambda: None
        finally:
            subprocess.run(["umount", str(place)], check=True)
    else:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max(1, size // 16),) * 2)
