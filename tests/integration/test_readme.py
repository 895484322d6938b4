"""The README's first screen, run on the shipped bundle: what it prints is what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adprior_runtime.cli import main
from support.paths import DEMO_BUNDLE, ROOT
from support.servers import start_server

NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.mark.triton
def test_the_readmes_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", text, re.DOTALL)
    assert found
    code, expected = found.groups()
    repository = tmp_path / "repository"
    build = ["build", "--bundle", str(DEMO_BUNDLE), "--output", str(repository)]
    assert main(build) == 0
    with start_server(repository) as server:
        printed = subprocess.run(
            [sys.executable, "-c", code.replace("localhost:8001", server.grpc_address)],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        ).stdout
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    numbers = ([float(number) for number in NUMBER.findall(part)] for part in (printed, expected))
    # Other processors round the last digits otherwise.
    assert next(numbers) == pytest.approx(next(numbers), abs=1e-3)
