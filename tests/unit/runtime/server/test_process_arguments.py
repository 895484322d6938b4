from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from adprior_runtime.server.process_arguments import blank_arguments

SECRET = "a-secret-that-others-must-not-read"


def test_a_childs_secret_is_blanked_and_stays_with_the_child() -> None:
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
        told, _ = child.communicate("\n")
    assert told == f"--token={SECRET}\n"


def test_a_process_that_is_gone_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child.wait()
    assert not blank_arguments(child.pid, [SECRET])
    assert os.getpid() != child.pid
