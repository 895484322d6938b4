from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from adprior_runtime.server.processes import blank_arguments, find_model_processes, is_zombie
from support.processes import await_true

SECRET = "a-secret-that-others-must-not-read"


def test_stubs_are_found_and_their_end_is_noticed(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sleep", stub)
    with subprocess.Popen([stub, "60"]) as process, subprocess.Popen(["/bin/sleep", "60"]) as other:
        found = find_model_processes(os.getpid())
        assert process.pid in found
        assert other.pid not in found
        assert not is_zombie(process.pid, os.getpid())
        other.kill()
        process.kill()
        await_true(lambda: is_zombie(process.pid, os.getpid()))
        process.wait()
        assert not is_zombie(process.pid, os.getpid())


def test_a_model_is_named_by_its_directory(tmp_path: Path) -> None:
    shell = tmp_path / "shell" / "triton_python_backend_stub"
    shell.parent.mkdir()
    shutil.copy("/bin/sh", shell)
    model = tmp_path / "repo" / "llm_engine" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("read forever\n")
    with subprocess.Popen([shell, model], stdin=subprocess.PIPE) as process:
        assert find_model_processes(os.getpid())[process.pid] == "llm_engine"
        process.kill()
    assert process.pid not in find_model_processes(os.getpid())


def test_a_child_of_another_process_is_ignored() -> None:
    assert not is_zombie(os.getpid(), parent=os.getpid())
    assert find_model_processes(2**22 + 1) == {}


def test_a_childs_secret_is_blanked_and_the_child_keeps_its_copy() -> None:
    code = "import sys; kept = sys.argv[1]; print('ready', flush=True); input(); print(kept)"
    with subprocess.Popen(
        [sys.executable, "-c", code, f"--token={SECRET}", "behind"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert blank_arguments(child.pid, [SECRET])
        arguments = Path(f"/proc/{child.pid}/cmdline").read_text().split("\0")
        assert arguments[-3:] == [f"--token={'*' * len(SECRET)}", "behind", ""]
        output, _ = child.communicate("\n")
    assert output == f"--token={SECRET}\n"


def test_a_process_that_has_ended_cannot_be_blanked() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child.wait()
    assert not blank_arguments(child.pid, [SECRET])
