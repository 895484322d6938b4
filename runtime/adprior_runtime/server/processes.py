"""The server's processes in ``/proc``: finds models, ended processes and tokens in arguments.

When a model's process ends, recent versions of Triton (24.06 and later) do not start it again. They
still report that they are ready, and requests for that model would wait for ever. So the parent
watches these processes.

Every user of the machine can list a process's arguments, and tritonserver takes its tokens only as
flags. The parent overwrites them when the server has read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

_STUB: Final = "triton_python_backend_stub"
_ARG_START, _ARG_END = 45, 46
"""Positions of ``arg_start`` and ``arg_end`` in ``/proc/PID/stat``, counted after the name."""


def find_model_processes(server_pid: int) -> Mapping[int, str]:
    """Return the models that a server's stubs run: model names by process id."""
    models = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent_and_state(int(entry.name))[0] == server_pid:
            model = model_run_by(_read(entry / "cmdline").split("\0"))
            if model is not None:
                models[int(entry.name)] = model
    return models


def model_run_by(command: Sequence[str]) -> str | None:
    """Return the name of the model that a stub's command line runs; None for other programs."""
    if len(command) < 2 or Path(command[0]).name != _STUB:
        return None
    return Path(command[1]).parent.parent.name  # REPOSITORY/MODEL/VERSION/model.py


def is_zombie(pid: int, parent: int) -> bool:
    """Whether a child has ended and its parent has not collected the exit status.

    If the server ended the process itself (unloading a model), it collects the exit status.
    """
    return _parent_and_state(pid) == (parent, "Z")


def blank_arguments(pid: int, secrets: Iterable[str]) -> bool:
    """Overwrite each secret in a child's arguments with asterisks.

    Args:
        pid: A child that has already copied its arguments.
        secrets: Texts to look for.

    Returns:
        False if the system forbids it.
    """
    try:
        numbers = _stat(pid)
        start, end = int(numbers[_ARG_START]), int(numbers[_ARG_END])
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            for secret in secrets:
                arguments = arguments.replace(secret.encode(), b"*" * len(secret))
            memory.seek(start)
            memory.write(arguments)
    except (OSError, ValueError, OverflowError, IndexError):
        return False
    return True


def _parent_and_state(pid: int) -> tuple[int | None, str]:
    fields = _stat(pid)
    return (int(fields[1]), fields[0]) if len(fields) > 1 else (None, "")


def _stat(pid: int) -> list[str]:
    # pid (name) state ppid ...: the name may contain blanks and brackets.
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended meanwhile
        return ""
