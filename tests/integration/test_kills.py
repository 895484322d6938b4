"""`adprior build` and `adprior train` killed (-9) at random moments: the old output, or none."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import DataSet

MOMENTS = 20
COMMAND = [
    sys.executable,
    "-c",
    "import sys; from adprior_runtime.cli import main; sys.exit(main())",
]


def digest(directory: Path) -> str:
    """Hash names and contents; hidden directories beside are not part of the output."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "training.json":  # how long it took, and how often it was killed
                content = json.dumps(json.loads(content) | {"run": None}).encode()
            total.update(str(path.relative_to(directory)).encode() + content)
    return total.hexdigest()


def run(arguments: list[str], kill_after_s: float | None = None) -> float:
    start = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return time.monotonic() - start


def assert_old_or_none_or_new(arguments: Callable[[Path], list[str]], output: Path) -> None:
    """Kill first into an empty place, then over an old output; then finish undisturbed."""
    moments = random.Random(11)
    duration_s = run(arguments(output))
    whole = output.with_name("whole")
    output.rename(whole)
    expected = digest(whole)
    for _ in range(MOMENTS // 2):
        run(arguments(output), moments.uniform(0.3, 1.0) * duration_s)
        if output.exists():  # it was done before the kill came
            assert digest(output) == expected
            output.rename(output.with_name(f"done-{moments.random()}"))
    whole.rename(output)
    (output / "old").write_text("old")
    old = digest(output)
    for _ in range(MOMENTS // 2):
        run(arguments(output), moments.uniform(0.3, 1.0) * duration_s)
        if digest(output) != old:
            assert digest(output) == expected
            (output / "old").write_text("old")
            old = digest(output)
    run(arguments(output))
    assert digest(output) == expected
    remains = [path.name for path in output.parent.iterdir()]
    assert not [name for name in remains if name.startswith(".") or name.endswith(".partial")]


@pytest.mark.timeout(600)
def test_build_killed_leaves_the_old_repository_or_none(bundle: Path, tmp_path: Path) -> None:
    assert_old_or_none_or_new(
        lambda output: ["build", "--bundle", str(bundle), "--output", str(output)],
        tmp_path / "repository",
    )


@pytest.mark.timeout(600)
def test_train_killed_leaves_the_old_checkpoint_or_none(data_set: DataSet, tmp_path: Path) -> None:
    assert_old_or_none_or_new(
        lambda output: data_set.train_arguments(output, epochs=2), tmp_path / "checkpoint"
    )
