from __future__ import annotations

import re
import time
from dataclasses import asdict, replace

import pytest

from adprior_build.training.progress import (
    Position,
    ProgressLine,
    Schedule,
    describe_epoch,
    describe_time,
    draw_losses,
)
from adprior_build.training.settings import Settings

SETTINGS = Settings(epochs=4, batch_size=1, learning_rate=1, weight_decay=0)
ONE_MINUTE = replace(SETTINGS, epochs=None, minutes=1)
ROW = {"epoch": 2, "loss": 3.0, "validation_loss": 2.5, "tokens": 9}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_schedule_counts_steps() -> None:
    position = Position(steps=10)
    schedule = Schedule(SETTINGS, position, 5)
    assert schedule.share_over() == 0.5
    assert schedule.share_over(after_step=True) == 0.55
    position.steps = 99  # an epoch had more steps than the first
    assert schedule.share_over() == 1


def test_a_schedule_counts_the_time_of_all_runs() -> None:
    clock = Clock()
    position = Position(seconds=30, rows=[ROW])
    schedule = Schedule(replace(ONE_MINUTE, minutes=2), position, 5, clock)
    clock.now += 30
    assert schedule.seconds() == 60
    assert schedule.share_over() == 0.5
    assert not schedule.is_over()
    position.last_validation_seconds = 60  # reserved for the next validation
    assert schedule.share_over() == 1
    assert schedule.time_is_over()
    assert schedule.is_over()
    position.last_validation_seconds = 1  # it took less than expected
    assert schedule.is_over()


def test_the_larger_share_of_steps_and_time_counts() -> None:
    clock = Clock()
    schedule = Schedule(replace(SETTINGS, minutes=1), Position(steps=5), 5, clock)
    assert schedule.share_over() == 0.25
    clock.now += 45
    assert schedule.share_over() == 0.75


def test_a_limit_shorter_than_a_validation_is_over() -> None:
    position = Position(last_validation_seconds=61, rows=[ROW])
    assert Schedule(ONE_MINUTE, position, 5).time_is_over()


@pytest.mark.parametrize(
    ("epoch", "step", "best", "patience", "over"),
    [
        (4, 0, 3, 0, True),
        (3, 0, 0, 0, False),
        (3, 7, 0, 1, False),  # within an epoch
        (2, 0, 1, 1, False),
        (2, 0, 0, 1, True),
        (3, 0, 1, 2, False),
        (3, 0, 0, 2, True),
    ],
)
def test_epochs_and_patience_end_a_training(
    epoch: int, step: int, best: int, patience: int, over: bool
) -> None:
    position = Position(epoch=epoch, step=step, best_epoch=best, rows=[ROW] * epoch)
    assert Schedule(replace(SETTINGS, patience=patience), position, 5).is_over() == over


def test_at_least_one_epoch_begins() -> None:
    clock = Clock()
    schedule = Schedule(ONE_MINUTE, Position(), 5, clock)
    clock.now += 1e6
    assert not schedule.is_over()


def test_the_line_shows_share_epoch_loss_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(0.25) as line:
        line.say("epoch 0: loss 3")
        line.move(0.5, epoch=1, nats=2.34567, tokens=12345.6, names=99.0)
        line.move(0.4, epoch=1, nats=2.0, tokens=1.0, names=1.0)  # a share never decreases
        line.move(1.7, epoch=2, nats=1.0, tokens=1234.5, names=67.8)
    found = capsys.readouterr()
    assert found.out == "epoch 0: loss 3\n"
    assert " 25%|" in found.err
    assert " 40%|" not in found.err
    last = re.split(r"[\r\n]", found.err.strip())[-1]
    assert last.startswith("adprior train: 100%|")
    assert last.endswith(", epoch 2, 1.00 nats a name, 1,234 tokens/s, 68 names/s")


def test_the_line_does_not_fill_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(0.0) as line:
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            share = (time.monotonic() - began) / 9
            line.move(share, epoch=0, nats=1.0, tokens=1.0, names=1.0)
    states = [text for text in re.split(r"[\r\n]", capsys.readouterr().err) if "%|" in text]
    assert len(states) == 2  # the first and the last


@pytest.mark.parametrize(
    ("changed", "is_best", "line"),
    [
        ({}, False, "epoch 2: 3.000 nats a name, validation 2.500"),
        (
            {"validation_new": 4.0, "validation_seen": 1.25},
            True,
            "epoch 2: 3.000 nats a name, validation 2.500 (4.000 new, 1.250 seen) (best)",
        ),
        (
            {"validation_seen": 1.25, "validation_interest": 2.0},
            False,
            "epoch 2: 3.000 nats a name, validation 2.500 (1.250 seen), 2.000 nats an interest",
        ),
        (
            {"share": 0.126, "checked": 0.25},
            False,
            "epoch 2, 13% of it (the time was over): 3.000 nats a name, validation 2.500 "
            "(of 25% of the users)",
        ),
    ],
)
def test_an_epochs_line_says_what_was_cut_short(
    changed: dict[str, float], is_best: bool, line: str
) -> None:
    assert describe_epoch(ROW | changed, is_best=is_best) == line


@pytest.mark.parametrize(
    ("resumed", "end"), [(0, ", 90 s of reading and writing"), (2, ", in 3 runs")]
)
def test_the_last_line_says_where_the_time_went(resumed: int, end: str) -> None:
    position = Position(seconds=180, validation_seconds=36, resumed=resumed)
    assert describe_time(position, 270) == f"2.4 minutes of training, 36 s of validation{end}"


def test_the_losses_are_drawn() -> None:
    position = Position(rows=[ROW | {"validation_loss": loss} for loss in (6.0, 5.0)])
    for nats in (9.0, 8.0, 4.0):
        position.curve.add(nats, 1)
    assert draw_losses(position) is None
    position.curve.add(4.0, 2)
    assert draw_losses(position) == ("loss 9.00 █▇▃▁ 2.00 nats a name · validation 6.00 █▁ 5.00")


def test_a_position_is_read_as_it_was_kept() -> None:
    position = Position(steps=1)
    position.curve.add(9.0, 2)
    kept = asdict(position)
    assert Position.of(kept) == position
    del kept["curve"]  # kept by an earlier version
    assert Position.of(kept).steps == 1
