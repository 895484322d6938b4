"""The processes that a tritonserver runs its Python models in, and whether they still live.

Triton does not start one again that ended, of late versions (from 24.06 on), and goes on to say
that it is ready: requests for that model then wait for ever. So whoever runs the server watches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_STUB: Final = "triton_python_backend_stub"


def find_model_processes(server_pid: int) -> Mapping[int, str]:
    """Return the model that each of a server's stubs runs, by process id."""
    models = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent_and_state(int(entry.name))[0] == server_pid:
            model = model_run_by(_read(entry / "cmdline").split("\0"))
            if model is not None:
                models[int(entry.name)] = model
    return models


def model_run_by(command: Sequence[str]) -> str | None:
    """Return the model that a command line runs in a stub; None where it is no stub's."""
    if len(command) < 2 or Path(command[0]).name != _STUB:
        return None
    return Path(command[1]).parent.parent.name  # REPOSITORY/MODEL/VERSION/model.py


def is_unasked_for(pid: int, parent: int) -> bool:
    """Tell whether a child ended whose status its parent has not asked for: a zombie.

    A server asks for it where it ended the process itself, on unloading a model.
    """
    return _parent_and_state(pid) == (parent, "Z")


def _parent_and_state(pid: int) -> tuple[int | None, str]:
    # pid (name) state ppid ...: the name may hold blanks and brackets.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[1]), fields[0]) if len(fields) > 1 else (None, "")


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
