"""`adprior build` and `train` killed (-9) at random moments leave the old output, or none."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.data_set import DataSet
from support.processes import hash_directory, start_adprior

KILLS, MANY_KILLS = 4, 10
"""Kills without an old output, and again with one; the second number with ``--long``."""


@pytest.fixture
def kills(is_long: bool) -> int:
    return MANY_KILLS if is_long else KILLS


def run(arguments: list[str], kill_after_s: float | None = None) -> float:
    """Run a command in a process of its own, or kill it after some time; return the seconds."""
    start = time.monotonic()
    process = start_adprior(arguments)
    process.join(kill_after_s)
    process.kill()
    process.join()
    return time.monotonic() - start


def assert_old_or_none_or_new(
    arguments: Callable[[Path], list[str]], output: Path, kills: int
) -> None:
    random_moments = random.Random(11)
    run(["--help"])  # the first process waits for the imports
    duration_s = run(arguments(output))
    expected = hash_directory(output)
    whole = output.rename(output.with_name("whole"))

    def run_and_kill() -> None:
        run(arguments(output), random_moments.uniform(0.3, 1.0) * duration_s)

    for number in range(kills):
        run_and_kill()
        if output.exists():  # the command ended before the kill
            assert hash_directory(output) == expected
            output.rename(output.with_name(f"done-{number}"))
    whole.rename(output)
    old = _mark_as_old(output)
    for _ in range(kills):
        run_and_kill()
        if hash_directory(output) != old:
            assert hash_directory(output) == expected
            old = _mark_as_old(output)
    run(arguments(output))
    assert hash_directory(output) == expected
    names = [path.name for path in output.parent.iterdir()]
    assert not [name for name in names if name.startswith(".") or name.endswith(".partial")]


def _mark_as_old(output: Path) -> str:
    (output / "old").write_text("old")
    return hash_directory(output)


@pytest.mark.timeout(600)
def test_build_killed_leaves_the_old_repository_or_none(
    bundle: Path, tmp_path: Path, kills: int
) -> None:
    assert_old_or_none_or_new(
        lambda output: ["build", "--bundle", str(bundle), "--output", str(output)],
        tmp_path / "repository",
        kills,
    )


@pytest.mark.timeout(600)
def test_train_killed_leaves_the_old_checkpoint_or_none(
    data_set: DataSet, tmp_path: Path, kills: int
) -> None:
    assert_old_or_none_or_new(
        lambda output: [*data_set.train_arguments(output, epochs=2), "--overwrite"],
        tmp_path / "checkpoint",
        kills,
    )
