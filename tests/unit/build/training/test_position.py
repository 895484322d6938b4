from __future__ import annotations

from dataclasses import replace

import pytest

from adprior_build.training.position import Position, Schedule
from adprior_build.training.settings import Settings
from adprior_runtime.errors import InvalidInputError

SETTINGS = Settings(epochs=4, batch_size=1, learning_rate=1, weight_decay=0)
ROW = {"epoch": 0.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_by_steps() -> None:
    position = Position(steps=10)
    schedule = Schedule(SETTINGS, position, 5)
    assert schedule.share_over() == 0.5
    assert schedule.share_over(after_step=True) == 0.55
    position.steps = 99  # an epoch had more steps than the first
    assert schedule.share_over() == 1


def test_by_time_counting_earlier_runs() -> None:
    clock = Clock()
    position = Position(seconds=30, rows=[ROW])
    timed = replace(SETTINGS, epochs=None, minutes=2)
    schedule = Schedule(timed, position, 5, clock)
    clock.now += 30
    assert schedule.seconds() == 60
    assert schedule.share_over() == 0.5
    assert not schedule.is_over()
    position.check_seconds = 60  # a look at the validation users shall fit
    assert schedule.share_over() == 1
    assert schedule.time_is_over()
    assert schedule.is_over()
    position.check_seconds = 1  # it was quicker than thought
    assert schedule.is_over()


def test_by_the_greater_share() -> None:
    clock = Clock()
    schedule = Schedule(replace(SETTINGS, minutes=1), Position(steps=5), 5, clock)
    assert schedule.share_over() == 0.25
    clock.now += 45
    assert schedule.share_over() == 0.75


def test_a_time_shorter_than_a_look_at_the_validation_users_is_over() -> None:
    position = Position(check_seconds=61, rows=[ROW])
    assert Schedule(replace(SETTINGS, minutes=1), position, 5).time_is_over()


@pytest.mark.parametrize(
    ("epoch", "step", "best", "patience", "over"),
    [
        (4, 0, 3, 0, True),
        (3, 0, 0, 0, False),
        (3, 7, 0, 1, False),  # amid an epoch
        (2, 0, 1, 1, False),
        (2, 0, 0, 1, True),
        (3, 0, 1, 2, False),
        (3, 0, 0, 2, True),
    ],
)
def test_the_end(epoch: int, step: int, best: int, patience: int, over: bool) -> None:
    position = Position(epoch=epoch, step=step, best_epoch=best, rows=[ROW] * epoch)
    assert Schedule(replace(SETTINGS, patience=patience), position, 5).is_over() == over


def test_one_epoch_is_begun_at_least() -> None:
    clock = Clock()
    schedule = Schedule(replace(SETTINGS, minutes=1), Position(), 5, clock)
    clock.now += 1e6
    assert not schedule.is_over()


def test_a_training_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="neither epochs nor minutes"):
        Settings(batch_size=1, learning_rate=1, weight_decay=0)
