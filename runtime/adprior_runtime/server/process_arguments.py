"""Secrets taken out of a running process's arguments, which every user of a machine can list.

tritonserver takes its tokens as flags and in no other way. Once it has read them, its parent
writes over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_START, _END = 45, 46
"""Of ``arg_start`` and ``arg_end`` among the fields of ``/proc/PID/stat`` behind the name."""
_BLANK: Final = b"*"


def blank_arguments(pid: int, secrets: Iterable[str]) -> bool:
    """Replace each secret in a child's arguments by asterisks; False where the system forbids it.

    Args:
        pid: Of a child that has copied its arguments.
        secrets: Texts to look for.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        numbers = stat.rpartition(")")[2].split()
        start, end = int(numbers[_START]), int(numbers[_END])
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            for secret in secrets:
                arguments = arguments.replace(secret.encode(), _BLANK * len(secret))
            memory.seek(start)
            memory.write(arguments)
    except (OSError, ValueError, OverflowError):
        return False
    return True
