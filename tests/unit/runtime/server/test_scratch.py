from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adprior_runtime.server.scratch import Scratch


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _abandoned(parent: Path) -> Path:
    """Return the scratch directory that a killed process left."""
    code = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from adprior_runtime.server.scratch import Scratch\n"
        "scratch = Scratch.make(); (scratch.directory / 'backends').mkdir()\n"
        "print(scratch.directory, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(parent)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    return Path(output.strip())


def test_a_directory_is_made_and_removed(tmp_path: Path) -> None:
    scratch = Scratch.make()
    assert scratch.directory.parent == tmp_path
    scratch.remove()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_removes_what_a_killed_server_left(tmp_path: Path) -> None:
    left = _abandoned(tmp_path)
    region = Path("/dev/shm") / f"{left.name}-region"
    region.write_text("shared")
    assert left.is_dir()
    scratch = Scratch.make()
    assert not left.exists()
    assert not region.exists()
    scratch.remove()


def test_the_files_of_a_running_server_stay(tmp_path: Path) -> None:
    living = Scratch.make()
    (living.directory / "backends").mkdir()
    Scratch.make().remove()
    assert (living.directory / "backends").is_dir()
    # The command is gone, the server that inherited the descriptor is not.
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[living.descriptor]
    ) as server:
        os.close(living.descriptor)
        Scratch.make().remove()
        assert living.directory.is_dir()
        server.communicate(b"\n")
    Scratch.make().remove()
    assert not living.directory.exists()


def test_directories_of_others_and_new_ones_stay(tmp_path: Path) -> None:
    for name in ("new", "without-a-lock"):
        (tmp_path / f"adprior-server-{name}").mkdir()
    (tmp_path / "adprior-server-new" / "lock").touch()  # about to be locked
    (tmp_path / "adprior-server-without-a-lock" / "file").touch()
    (tmp_path / "adprior-servers").mkdir()
    (tmp_path / "adprior-server-link").symlink_to(tmp_path / "adprior-servers")
    for name in ("lock", "file"):
        (tmp_path / "adprior-servers" / name).touch()
    Scratch.make().remove()
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "adprior-servers" / "file").exists()
