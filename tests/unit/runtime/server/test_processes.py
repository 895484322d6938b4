from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from adprior_runtime.server.processes import find_model_processes, is_unasked_for


def test_stubs_are_found_and_told_apart_when_they_end(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sleep", stub)
    with subprocess.Popen([stub, "60"]) as process, subprocess.Popen(["/bin/sleep", "60"]) as other:
        found = find_model_processes(os.getpid())
        assert process.pid in found
        assert other.pid not in found
        assert not is_unasked_for(process.pid, os.getpid())
        other.kill()
        process.kill()
        deadline = time.monotonic() + 10
        while not is_unasked_for(process.pid, os.getpid()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.wait()
        assert not is_unasked_for(process.pid, os.getpid())


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


def test_another_processs_child_is_not_ours() -> None:
    assert not is_unasked_for(os.getpid(), parent=os.getpid())
    assert find_model_processes(2**22 + 1) == {}
