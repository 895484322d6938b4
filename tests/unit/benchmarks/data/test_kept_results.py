from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from adprior_bench.data.kept_results import keep_results, key_of, partial_directory
from adprior_runtime.errors import InvalidInputError

IDENTITY = {"bundle_id": "b1", "threads": 1}


def fill(directory: Path, count: int, *, killed: bool) -> None:
    """Keep results 0, 1, ...; then be killed, or fail."""
    with keep_results(directory, IDENTITY, command="fill") as kept:
        for number in range(count):
            kept.put(key_of(str(number)), {"row": np.full(3, number), "half": np.array(0.5)})
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("stop")


def test_results_of_a_killed_process_survive(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=fill, args=(tmp_path / "out.partial", 5), kwargs={"killed": True}
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with keep_results(tmp_path / "out.partial", IDENTITY, command="fill") as kept:
        assert len(kept) == 5
        for number in (3, 0, 4):
            found = kept.get(key_of(str(number)))
            assert found is not None
            assert found["row"].tolist() == [number] * 3
            assert found["half"] == 0.5
        assert kept.get(key_of("5")) is None
    assert not (tmp_path / "out.partial").exists()


def test_results_of_a_failed_run_are_kept_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fill(tmp_path / "out.partial", 2, killed=False)
    assert "2 results are kept in" in capsys.readouterr().err
    with keep_results(tmp_path / "out.partial", IDENTITY, command="fill") as kept:
        assert len(kept) == 2
    assert "continues with 2 results" in capsys.readouterr().err


def test_a_run_that_kept_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fill(tmp_path / "out.partial", 0, killed=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"bundle_id": "b2"}, {"threads": 2}, {"more": 1}])
def test_results_of_another_identity_are_never_used(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fill(tmp_path / "out.partial", 2, killed=False)
    with keep_results(tmp_path / "out.partial", IDENTITY | change, command="fill") as kept:
        assert len(kept) == 0


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.95])
def test_a_damaged_result_counts_as_missing(tmp_path: Path, place: float) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fill(tmp_path / "out.partial", 2, killed=False)
    path = tmp_path / "out.partial" / f"{key_of('0')}.result"
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with keep_results(tmp_path / "out.partial", IDENTITY, command="fill") as kept:
        assert kept.get(key_of("0")) is None
        assert kept.get(key_of("1")) is not None
        kept.put(key_of("0"), {"row": np.zeros(1)})
        assert kept.get(key_of("0")) is not None


def test_a_result_cut_off_by_a_kill_counts_as_missing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        fill(tmp_path / "out.partial", 1, killed=False)
    path = tmp_path / "out.partial" / f"{key_of('0')}.result"
    path.write_bytes(path.read_bytes()[:-9])
    with keep_results(tmp_path / "out.partial", IDENTITY, command="fill") as kept:
        assert kept.get(key_of("0")) is None


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(InvalidInputError, match="choose another --work"),
        keep_results(tmp_path, IDENTITY, command="fill"),
    ):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        keep_results(tmp_path / "w", IDENTITY, command="first"),
        pytest.raises(InvalidInputError, match="another process uses this directory"),
        keep_results(tmp_path / "w", IDENTITY, command="second"),
    ):
        pass


def test_without_a_directory_nothing_is_kept() -> None:
    with keep_results(None, IDENTITY, command="fill") as kept:
        kept.put("key", {"row": np.zeros(1)})
        assert kept.get("key") is None


def test_keys_depend_on_the_parts_boundaries() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("ab", b"c") == key_of("ab", "c")


def test_the_place_is_beside_the_output(tmp_path: Path) -> None:
    assert partial_directory(None, None) is None
    assert partial_directory(None, tmp_path / "report") == tmp_path / "report.partial"
    assert partial_directory(tmp_path / "w", tmp_path / "report") == tmp_path / "w"
