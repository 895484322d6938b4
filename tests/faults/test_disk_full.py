"""A command whose disk fills up prints one clear line and leaves no partial output."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from faults.conftest import Report
from support.data_set import DataSet
from support.processes import COMMAND, hash_directory
from support.small_disk import small_disk

Arguments = Callable[[Path], list[str]]
# Disk sizes as shares of the output's size. The command must fail below 1; training may need more,
# for its checkpoints.
SHARES = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
TRAIN_SHARES = (0.0, 0.2, 0.6, 0.95, 1.5, 2.2, 3.0, 4.0)


def _run(arguments: list[str], before: Callable[[], None]) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        preexec_fn=before,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=250,
        check=False,
    )
    return done.returncode, done.stderr


def _room(directory: Path) -> int:
    """Return the bytes of a tree in whole pages; linked files count once."""
    sizes = {path.lstat().st_ino: path.lstat().st_size for path in directory.rglob("*")}
    return sum(-(-size // 4096) * 4096 for size in sizes.values())


def _assert_fails_cleanly(
    command: str, arguments: Arguments, place: Path, room: int, share: float
) -> None:
    with small_disk(place, int(share * room)) as before:
        status, errors = _run(arguments(place), before)
        if status == 0 and share >= 1:
            return
        what = f"{command} with {share:.0%} of {room:,} bytes: {status}: {errors}"
        assert status == 2, what
        # Progress comes first; the error is the last line.
        line = errors.splitlines()[-1]
        assert line.startswith(f"adprior {command}: "), what
        assert "No space left on device" in line or "File too large" in line, what
        assert "Traceback" not in errors, what
        left = {path.name for path in place.iterdir()}
        # Only the state that the same command continues from, if there is one.
        assert left <= {"checkpoint.partial"}, (what, left)
        if os.path.ismount(place):
            grow = ["mount", "-o", "remount,size=1G", str(place)]
            subprocess.run(grow, check=True)
            assert _run(arguments(place), before)[0] == 0, what


def _build(bundle: Path, place: Path) -> list[str]:
    return ["build", "--bundle", str(bundle), "--output", str(place / "repository")]


def _save_bundle(bundle: Path, place: Path) -> list[str]:
    return [*_build(bundle, place), "--save-bundle", str(place / "bundle")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "of_bundle", [pytest.param(_build, marks=pytest.mark.long_form), _save_bundle]
)
def test_build(
    tiny_bundle: Path,
    tmp_path: Path,
    is_long: bool,
    report: Report,
    of_bundle: Callable[[Path, Path], list[str]],
) -> None:
    arguments = partial(of_bundle, tiny_bundle)
    whole = tmp_path / "whole"
    with small_disk(whole, 2**30) as before:
        assert _run(arguments(whole), before)[0] == 0
        room = _room(whole)
    shares = SHARES if is_long else [0.7]
    for share in shares:
        _assert_fails_cleanly("build", arguments, tmp_path / "small", room, share)
    _count(report, len(shares))


def test_without_room_for_a_new_repository_the_old_one_stays(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = _build(tiny_bundle, tmp_path / "small")
    place = tmp_path / "small"
    with small_disk(place, 8 * 2**20) as before:
        if not os.path.ismount(place):
            pytest.skip("needs a file system of its own, which only root may mount")
        assert _run(arguments, before)[0] == 0
        old = hash_directory(place / "repository")
        free = os.statvfs(place).f_bavail * 4096
        (place / "filler").write_bytes(bytes(free - 2**17))
        status, errors = _run(arguments, before)
        assert (status, errors.count("\n")) == (2, 1), errors
        assert hash_directory(place / "repository") == old
        assert sorted(path.name for path in place.iterdir()) == ["filler", "repository"]


@pytest.mark.long_form
@pytest.mark.timeout(1800)
def test_train(tmp_path: Path, report: Report) -> None:
    data_set = DataSet.write(tmp_path)

    def arguments(place: Path) -> list[str]:
        return data_set.train_arguments(place / "checkpoint", epochs=2)

    whole = tmp_path / "whole"
    with small_disk(whole, 2**30) as before:
        assert _run(arguments(whole), before)[0] == 0
        room = _room(whole)
    for share in TRAIN_SHARES:
        _assert_fails_cleanly("train", arguments, tmp_path / "small", room, share)
    _count(report, len(TRAIN_SHARES))


def _count(report: Report, tried: int) -> None:
    section = report.sections.setdefault("disk_full", {"failed_in_one_line_leaving_nothing": 0})
    section["failed_in_one_line_leaving_nothing"] += tried
