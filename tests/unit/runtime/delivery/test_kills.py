"""``adprior push`` and ``pull`` are killed at many moments: the old state stays, or the new one.

The long form kills at every operation on a file, the short one at some.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path

import pytest

from adprior_runtime.delivery import staging
from support.deliveries import Adprior, contents, write_repository
from support.kills import PART_BYTES, run_until_killed
from support.processes import COMMAND, run_adprior
from support.s3_server import BUCKET, needs_s3, running_s3

_PUSH_STEP, _PULL_STEP = 3, 9
"""The short form leaves out all but every third or ninth moment."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", PART_BYTES)


@pytest.fixture
def pushed(adprior: Adprior, first: Path, second: Path, tmp_path: Path) -> dict[str, Path]:
    """A store with the first version, and one with both."""
    stores = {"first": tmp_path / "store-first", "both": tmp_path / "store-both"}
    for store in stores.values():
        adprior("push", first, store)
    adprior("push", second, stores["both"])
    return stores


@pytest.mark.timeout(900)  # the long form
def test_a_killed_push(
    adprior: Adprior,
    first: Path,
    second: Path,
    pushed: dict[str, Path],
    tmp_path: Path,
    is_long: bool,
) -> None:
    old, new = contents(first), contents(second)
    outcomes = []
    for moment in count(1, 1 if is_long else _PUSH_STEP):
        store, target = tmp_path / "store", tmp_path / "target"
        shutil.copytree(pushed["first"], store)
        was_killed = run_until_killed(moment, store, "push", second, store)
        adprior("pull", store, target)
        outcomes.append(contents(target))
        adprior("push", second, store)
        adprior("pull", store, target)
        assert contents(target) == new
        assert not list(store.rglob(".*")), "a leftover"
        shutil.rmtree(store)
        if not was_killed:
            break
    assert all(outcome in (old, new) for outcome in outcomes)
    assert outcomes[0] == old
    assert outcomes[-1] == new
    assert len(outcomes) > 5


@pytest.mark.timeout(900)  # the long form
@pytest.mark.parametrize("has_old", [True, False], ids=["old version", "nothing"])
def test_a_killed_pull(
    adprior: Adprior,
    first: Path,
    second: Path,
    pushed: dict[str, Path],
    tmp_path: Path,
    is_long: bool,
    has_old: bool,
) -> None:
    new = contents(second)
    outcomes = []
    for moment in count(1, 1 if is_long else _PULL_STEP):
        place = tmp_path / "place"
        target = place / "target"
        if has_old:
            adprior("pull", pushed["first"], target)
        was_killed = run_until_killed(moment, place, "pull", pushed["both"], target)
        outcomes.append(contents(target) if target.exists() else None)
        adprior("pull", pushed["both"], target)
        assert contents(target) == new
        assert [path.name for path in place.iterdir()] == ["target"], "a leftover"
        shutil.rmtree(place)
        if not was_killed:
            break
    old = contents(first) if has_old else None
    assert all(outcome in (old, new) for outcome in outcomes)
    assert outcomes[0] == old
    assert outcomes[-1] == new
    assert len(outcomes) > 5


@pytest.mark.timeout(900)  # the long form
@needs_s3
def test_killed_at_random_moments_with_s3(
    adprior: Adprior,
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_long: bool,
) -> None:
    chance = random.Random(7)
    url, target = f"s3://{BUCKET}/kills", tmp_path / "place" / "target"
    (tmp_path / "s3").mkdir()
    with running_s3(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        push_s, pull_s = _time("push", first, url), _time("pull", url, target)
        held = contents(first)
        for seed in range(25 if is_long else 2):
            new = write_repository(tmp_path / f"new-{seed}", seed=10 + seed)
            wanted = contents(new)
            _kill_after(push_s * chance.uniform(0.4, 1.0), "push", new, url)
            adprior("pull", url, target)
            assert contents(target) in (held, wanted)
            adprior("push", new, url)
            _kill_after(pull_s * chance.uniform(0.4, 1.0), "pull", url, target)
            assert contents(target) in (held, wanted)
            adprior("pull", url, target)
            assert contents(target) == wanted
            assert [path.name for path in target.parent.iterdir()] == ["target"]
            held = wanted


def _time(*arguments: str | Path) -> float:
    """Run a command; return the seconds that it took."""
    started = time.monotonic()
    assert run_adprior(*arguments).returncode == 0
    return time.monotonic() - started


def _kill_after(delay_s: float, *arguments: str | Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay_s)
    process.kill()
    process.wait(20)
