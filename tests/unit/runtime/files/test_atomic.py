from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files import atomic
from adprior_runtime.files.atomic import replace_directory, replace_file, scratch_directory

MARKER = "made-by-us"


class PlannedError(Exception):
    """An error inside a block."""


def make(directory: Path, content: str = "old") -> Path:
    """Make an earlier output of adprior."""
    directory.mkdir()
    (directory / MARKER).write_text(content)
    (directory / "part").mkdir()
    (directory / "part" / "data").write_text(content)
    return directory


def fail_halfway(path: Path) -> None:
    path.write_text("half")
    raise PlannedError


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def dead_process() -> int:
    """Return the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture(params=["exchange", "two renames"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap in one step, as Linux can, and in two, as on other file systems."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)


def test_a_new_directory_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with replace_directory(target, marker=MARKER) as fresh:
        (fresh / MARKER).write_text("new")
        assert not target.exists()
        assert fresh.parent == target.parent
    assert contents(target) == {MARKER: "new"}
    assert names(target.parent) == ["out"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("both_ways")
def test_an_earlier_output_is_replaced_whole(tmp_path: Path) -> None:
    target = make(tmp_path / "out")
    with replace_directory(target, marker=MARKER) as fresh:
        (fresh / MARKER).write_text("new")
        assert contents(target) == {MARKER: "old", "part/data": "old"}
    assert contents(target) == {MARKER: "new"}
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("both_ways")
def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with replace_directory(target, marker=MARKER) as fresh:
        (fresh / MARKER).write_text("new")
    assert contents(target) == {MARKER: "new"}
    assert names(tmp_path) == ["out"]


def test_a_block_that_fails_leaves_the_old_directory_and_nothing_else(tmp_path: Path) -> None:
    target = make(tmp_path / "out")
    with pytest.raises(PlannedError), replace_directory(target, marker=MARKER) as fresh:
        fail_halfway(fresh / MARKER)
    assert contents(target) == {MARKER: "old", "part/data": "old"}
    assert names(tmp_path) == ["out"]


def test_a_block_that_fails_makes_no_new_directory(tmp_path: Path) -> None:
    with (
        pytest.raises(PlannedError),
        replace_directory(tmp_path / "out", marker=MARKER) as fresh,
    ):
        fail_halfway(fresh / MARKER)
    assert names(tmp_path) == []


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.tex").write_text("years")
    with (
        pytest.raises(InvalidInputError, match=f"{target}: exists and .* \\(no {MARKER}\\)"),
        replace_directory(target, marker=MARKER),
    ):
        pytest.fail("the block must not run")
    assert contents(target) == {"thesis.tex": "years"}
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("a file")
    with (
        pytest.raises(InvalidInputError, match=f"{target}: is a file, expected a directory"),
        replace_directory(target, marker=MARKER),
    ):
        pytest.fail("the block must not run")
    assert target.read_text() == "a file"


def test_a_file_among_the_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InvalidInputError, match=str(tmp_path / "file")),
        replace_directory(tmp_path / "file" / "out", marker=MARKER),
    ):
        pytest.fail("the block must not run")


def test_a_relative_target_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with replace_directory(Path("out"), marker=MARKER) as fresh:
        (fresh / MARKER).touch()
        monkeypatch.chdir("/")
    assert names(tmp_path) == ["out"]


def test_remains_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path: Path) -> None:
    dead = make(tmp_path / f".out.new-{dead_process()}-x")
    dead_old = make(tmp_path / f".out.new-{dead_process()}-x-old")
    living = make(tmp_path / f".out.new-{os.getppid()}-x")
    of_another = make(tmp_path / f".other.new-{dead_process()}-x")
    with replace_directory(tmp_path / "out", marker=MARKER) as fresh:
        assert not dead.exists()
        assert not dead_old.exists()
        (fresh / MARKER).touch()
    assert names(tmp_path) == sorted([living.name, of_another.name, "out"])


def test_a_name_with_wildcards_keeps_to_its_own_remains(tmp_path: Path) -> None:
    of_another = make(tmp_path / f".ab.new-{dead_process()}-x")
    with replace_directory(tmp_path / "[a]*", marker=MARKER) as fresh:
        (fresh / MARKER).touch()
    assert names(tmp_path) == sorted([of_another.name, "[a]*"])


def test_a_link_to_an_earlier_output_leaves_no_remains(tmp_path: Path) -> None:
    make(tmp_path / "blue")
    target = tmp_path / "current"
    target.symlink_to("blue")
    with replace_directory(target, marker=MARKER) as fresh:
        (fresh / MARKER).write_text("new")
    assert contents(target) == {MARKER: "new"}
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_file_is_replaced_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "log"
    for content in ("old", "new"):
        with replace_file(target) as fresh:
            fresh.write_text(content)
    assert target.read_text() == "new"
    assert names(target.parent) == ["log"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "log"
    target.write_text("old")
    with pytest.raises(PlannedError), replace_file(target) as fresh:
        fail_halfway(fresh)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["log"]


def test_a_directory_in_a_files_place_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInputError, match=f"{tmp_path}: is a directory, expected a file"),
        replace_file(tmp_path),
    ):
        pytest.fail("the block must not run")


def test_remains_of_a_dead_process_are_removed_for_a_file_too(tmp_path: Path) -> None:
    dead = tmp_path / f".log.new-{dead_process()}-file"
    dead.write_text("half")
    living = tmp_path / f".log.new-{os.getppid()}-file"
    living.write_text("half")
    with replace_file(tmp_path / "log") as fresh:
        fresh.write_text("new")
    assert names(tmp_path) == sorted([living.name, "log"])


@pytest.mark.parametrize("fails", [False, True])
def test_a_scratch_directory_lies_beside_the_target_and_vanishes(
    tmp_path: Path, fails: bool
) -> None:
    target = tmp_path / "deep" / "out"
    try:
        with scratch_directory(target) as place:
            (place / "part").mkdir()
            (place / "part" / "data").touch()
            assert place.parent == target.parent
            if fails:
                raise PlannedError
    except PlannedError:
        assert fails
    assert names(target.parent) == []


@pytest.mark.parametrize(
    ("umask", "directory", "file"),
    [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0, 0o775, 0o664)],
)
def test_outputs_have_the_modes_of_the_umask_but_others_can_never_write_them(
    tmp_path: Path, umask: int, directory: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        with replace_directory(tmp_path / "out", marker=MARKER) as fresh:
            (fresh / "part").mkdir()
            (fresh / "part" / MARKER).touch()
        with replace_file(tmp_path / "alone") as path:
            path.touch()
    finally:
        os.umask(before)
    found = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
    }
    expected = {"out": directory, "out/part": directory, f"out/part/{MARKER}": file, "alone": file}
    assert found == expected
