from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adprior_build.commands.train import add_arguments
from adprior_build.data.event_log import UserHistory
from adprior_build.provenance import RUN_KEY
from adprior_build.training.progress import Position
from adprior_build.training.record import describe_training, identify_training
from adprior_build.training.windows import Window
from support.windows import make_window

WINDOWS = [make_window([1, 2, 3], [2]), make_window([4, 5], [1])]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("events", "columns", "catalogue"):
        (tmp_path / name).write_text(name)
    (tmp_path / "start").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "start" / name).write_text(name)
    return tmp_path


def options(place: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [f"--{name}={place / name}" for name in ("events", "columns", "catalogue")]
    given += [f"--from={place / 'start'}", "--lora-rank=2"]
    return parser.parse_args([*given, f"--output={place / 'out'}", *more])


def identity(args: argparse.Namespace, windows: list[Window] = WINDOWS) -> dict[str, Any]:
    found = identify_training(args, windows=windows, checks=WINDOWS[:1])
    assert json.loads(json.dumps(found)) == found
    return found


def test_options_that_do_not_change_the_result_are_free(files: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(files, elsewhere, ignore=lambda *_: ["elsewhere"])
    same = ["--threads=3", "--work=W", "--restart", "--checkpoint-minutes=7", "--overwrite"]
    assert identity(options(elsewhere, *same)) == identity(options(files))


def differing(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--seed=4", "seed"),
        ("--minutes=4", "minutes"),
        ("--cut=2024-05-31", "cut"),
        ("--dropout=0.1", "dropout"),
        ("--upper-layers=3", "upper_layers"),
        ("--test-share=0.1", "test_share"),
        ("--precision=bf16", "precision"),
    ],
)
def test_another_setting_is_another_training(files: Path, option: str, key: str) -> None:
    assert differing(identity(options(files)), identity(options(files, option))) == {key}


@pytest.mark.parametrize(
    ("file", "key"),
    [
        *((name, name) for name in ("events", "columns", "catalogue")),
        ("start/config.json", "from"),
        ("start/model.safetensors", "from"),
    ],
)
def test_another_input_is_another_training(files: Path, file: str, key: str) -> None:
    before = identity(options(files))
    (files / file).write_text("more")
    assert differing(before, identity(options(files))) == {key}


@pytest.mark.parametrize(
    "windows",
    [
        WINDOWS[:1],
        WINDOWS[::-1],
        [make_window([1, 2, 9], [2]), WINDOWS[1]],
        [make_window([1, 2, 3], [1]), WINDOWS[1]],
    ],
)
def test_other_windows_are_another_training(files: Path, windows: list[Window]) -> None:
    after = identity(options(files), windows)
    assert differing(identity(options(files)), after) == {"windows"}


def test_other_interests_are_another_training(files: Path) -> None:
    plain = identity(options(files))
    assert "interests" not in plain
    (files / "interests").write_text("tea")
    option = f"--interests={files / 'interests'}"
    before = identity(options(files, option))
    assert set(before) - set(plain) == {"interests"}
    (files / "interests").write_text("coffee")
    assert differing(before, identity(options(files, option))) == {"interests"}


def test_the_record_keeps_what_varies_between_runs_apart(files: Path) -> None:
    rows = [{"epoch": 0, "loss": 2.0, "validation_loss": 2.5, "tokens": 30}]
    position = Position(tokens=30, best_epoch=0, rows=rows, seconds=1.23456, resumed=2)
    args = options(files, "--precision=bf16", "--dropout=0.5", "--work=W", "--threads=1")
    users = [UserHistory(user_id="a", profile={}, events=())]
    record = describe_training(args, users, [], position)
    assert record["losses"] == rows
    assert record[RUN_KEY] == {"seconds": 1.235, "resumed": 2}
    assert (record["training_users"], record["validation_users"]) == (1, 0)
    assert record["settings"]["precision"] == "bf16"
    assert record["settings"]["epochs"] == 10
    assert record["settings"]["dropout"] == 0.5
    assert record["settings"]["lora_rank"] == 2
    for part in ("--precision bf16", "--dropout 0.5", "--output out", "--from start"):
        assert part in record["command"]
    for part in ("--work", "--threads", "--patience", "--device", "--merge", str(files)):
        assert part not in record["command"]
