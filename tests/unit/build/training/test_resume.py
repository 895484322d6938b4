"""A training that is stopped or killed, and run again, ends as an unbroken one."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adprior_build.training.loop import train
from adprior_build.training.progress import Position
from adprior_build.training.state import kept_state
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError
from support.processes import await_true, start_adprior
from support.small_checkpoint import CUT, SmallData
from unit.build.training.test_loop import CONTRARY, SETTINGS, TAUGHT, fixed, fresh_model

LONG = replace(SETTINGS, epochs=3, batch_size=3)


def run_with_state(directory: Path, *, stop_after: int | None) -> tuple[Any, Position | None]:
    """Train and save the state after every step; stop after ``stop_after`` saves."""
    model, position = fresh_model(), None
    with suppress(KeyboardInterrupt), kept_state(directory, minutes=0, restart=False) as keeper:
        kept, save, count = keeper.begin({}), keeper.save, 0

        def save_and_stop(*state: Any) -> None:
            nonlocal count
            save(*state)
            count += 1
            if count == stop_after:
                raise KeyboardInterrupt

        keeper.save = save_and_stop  # type: ignore[method-assign, assignment]
        position = train(model, fixed(TAUGHT), CONTRARY, LONG, keeper=keeper, kept=kept)
    return model, position


@pytest.mark.parametrize("stops", [[1], [4], [6], [12], [1, 1, 3, 5], [1] * 12])
def test_a_resumed_training_ends_as_an_unbroken_one(tmp_path: Path, stops: list[int]) -> None:
    unbroken = fresh_model()
    expected = train(unbroken, fixed(TAUGHT), CONTRARY, LONG)
    for stop in stops:
        assert run_with_state(tmp_path / "work", stop_after=stop)[1] is None
    model, position = run_with_state(tmp_path / "work", stop_after=None)
    assert position is not None
    assert position.rows == expected.rows
    assert position.resumed == len(stops)
    assert position.seconds > 0
    assert (position.best_epoch, position.best_loss) == (expected.best_epoch, expected.best_loss)
    for mine, theirs in zip(model.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert list(tmp_path.iterdir()) == []


def diverge(directory: Path) -> None:
    settings = replace(SETTINGS, learning_rate=1e30, batch_size=4)
    with kept_state(directory, minutes=10, restart=False) as keeper:
        keeper.begin({})
        train(fresh_model(), fixed(TAUGHT), TAUGHT, settings, keeper=keeper)


def test_a_training_that_diverges_leaves_no_state(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="diverged"):
        diverge(tmp_path / "work")
    assert list(tmp_path.iterdir()) == []


def arguments(data: SmallData, output: Path) -> list[str]:
    """Return a command with several steps per epoch and all sources of randomness."""
    options = ["--output", str(output), "--catalogue", str(data.path("catalogue.parquet"))]
    options += ["--from", str(data.path("start")), "--cut", CUT.isoformat()]
    options += ["--lora-rank", "2", "--upper-layers", "1", "--dropout", "0.1", "--merge"]
    options += ["--epochs", "20", "--batch-size", "1", "--threads", "1"]
    options += ["--validation-share", "0.3", "--checkpoint-minutes", "1e-6"]
    return ["train", *data.log_options(), *options]


def kill_within_an_epoch(command: list[str], state: Path, epoch: int) -> Position:
    """Run, kill (-9) after ``epoch`` epochs, and return the position that is kept."""
    process = start_adprior(command)
    await_true(
        lambda: state.exists() and read_position(state).epoch >= epoch,
        "the training does not reach the epoch",
        poll_s=0.005,
    )
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return read_position(state)


def read_position(state: Path) -> Position:
    return Position.of(json.loads(state.read_text())["position"])


@pytest.mark.timeout(300)
def test_a_killed_command_resumes_with_the_same_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    data = SmallData.write(tmp_path / "data")
    output, partial = tmp_path / "checkpoint", tmp_path / "checkpoint.partial"
    assert main(arguments(data, tmp_path / "unbroken")) == 0
    kept = kill_within_an_epoch(arguments(data, output), partial / "state.json", epoch=4)
    assert not output.exists()
    capsys.readouterr()
    assert main(arguments(data, output)) == 0
    lines = capsys.readouterr().out.splitlines()
    *_, resumes, _, drawn, wrote = [line for line in lines if line.startswith("adprior train")]
    assert sum(line.startswith("epoch ") for line in lines) == 20 - kept.epoch
    assert resumes.startswith(
        f"adprior train: resumes from epoch {kept.epoch}, step {kept.step}, after "
    )
    assert str(partial) in resumes
    assert drawn.startswith("adprior train: loss ")
    assert wrote.startswith(f"adprior train: wrote {output} · weights of epoch ")
    assert wrote.endswith(" of validation, in 2 runs")
    assert not partial.exists()
    records = [json.loads((tmp_path / place / "training.json").read_text())
               for place in ("unbroken", "checkpoint")]  # fmt: skip
    runs = [record.pop("run") for record in records]
    assert [run["resumed"] for run in runs] == [0, 1]
    commands = [record.pop("command") for record in records]
    assert commands[1] == commands[0].replace("unbroken", "checkpoint")
    assert records[0] == records[1]
    assert len(records[0]["losses"]) == 20
    weights = [(tmp_path / place / "model.safetensors").read_bytes()
               for place in ("unbroken", "checkpoint")]  # fmt: skip
    assert weights[0] == weights[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "data", "unbroken"]


def stop(monkeypatch: pytest.MonkeyPatch, data: SmallData, output: Path, *options: str) -> int:
    """Run until the finished training is to be written."""
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, os.strerror(28))

        patch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", full)
        return data.train(output, *options)


def test_a_full_disk_loses_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = SmallData.write(tmp_path), tmp_path / "out"
    assert stop(monkeypatch, data, output) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{output}: cannot be written: No space left on device; the finished training" in error
    assert not output.exists()
    assert data.train(output) == 0
    assert "resumes from epoch 1, step 0" in capsys.readouterr().out
    assert json.loads((output / "training.json").read_text())["run"]["resumed"] == 1
    assert not (tmp_path / "out.partial").exists()


def test_other_settings_are_refused_and_restart_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = SmallData.write(tmp_path), tmp_path / "out"
    work = ["--work", str(tmp_path / "work")]
    assert stop(monkeypatch, data, output, *work, "--seed", "1") == 2
    capsys.readouterr()
    assert data.train(output, *work, "--seed", "2") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'work'}: holds the state of another training (" in error
    assert error.count("\n") == 1
    data.write_catalogue({"advertiser_id": [101, 102], "name": ["Acme", "Acme Pets"]})
    assert data.train(output, *work, "--seed", "1") == 2
    assert "(catalogue changed)" in capsys.readouterr().err
    assert not output.exists()
    assert data.train(output, *work, "--seed", "2", "--restart") == 0
    assert "resumes" not in capsys.readouterr().out
    assert not (tmp_path / "work").exists()
