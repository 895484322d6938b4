from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from adprior_bench.search.peers.system import Peer, PeerError, PeerProcess

ECHO = """
import subprocess, sys
def load(job):
    print("a library's own words")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return lambda prompt: [[-0.5, prompt[::-1]], [None, [job["end_id"], child.pid]]]
"""


def start(directory: Path, script: str, python: str = sys.executable) -> PeerProcess:
    path = directory / "peer.py"
    path.write_text(script, encoding="utf-8")
    peer = Peer(title="made up", package="made-up", script=str(path), is_constrained=False)
    return PeerProcess(peer, python, {"scratch": str(directory), "end_id": 7})


def test_a_peer_answers_each_prompt_and_leaves_no_process(tmp_path: Path) -> None:
    with start(tmp_path, ECHO) as peer:
        for prompt in ([1, 2, 3], [4]):
            answer = peer.search(prompt)
            (child,) = [beam[1] for beam in answer.beams[1:]]
            assert answer.beams == [prompt[::-1], [7, child]]
            assert answer.log_probs == [-0.5, None]
            assert answer.ms > 0 <= answer.processor_ms
            assert not answer.is_certified
        process = psutil.Process(child)
        assert process.is_running()
    assert psutil.wait_procs([process], timeout=60)[0] == [process]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("raise ValueError('a\\n  b')", "ValueError: a b"),
        ("import no_such_package", "No module named 'no_such_package'; needs: pip install made-up"),
        ("import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)",
         "ended with exit code 3: last words"),
        ("import os; os._exit(4)", "ended with exit code 4: it printed nothing"),
    ],
)  # fmt: skip
def test_a_peer_that_does_not_load_says_why_in_one_line(
    tmp_path: Path, script: str, problem: str
) -> None:
    with pytest.raises(PeerError) as error:
        start(tmp_path, script)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_peer_that_fails_on_a_prompt_says_why(tmp_path: Path) -> None:
    script = "def load(job):\n    return lambda prompt: [[0.0, [1 // prompt[0]]]]"
    with start(tmp_path, script) as peer:
        assert peer.search([1]).beams == [[1]]
        with pytest.raises(PeerError, match="ZeroDivisionError"):
            peer.search([0])


def test_a_python_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "python")
    with pytest.raises(PeerError, match=f"{missing}: No such file"):
        start(tmp_path, ECHO, missing)
