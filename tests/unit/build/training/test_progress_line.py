from __future__ import annotations

import re
import time

import pytest

from adprior_build.training.position import Position
from adprior_build.training.progress_line import ProgressLine, describe_epoch, describe_time


def test_the_line_tells_share_epoch_loss_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(0.25) as line:
        line.say("epoch 0: loss 3")
        line.move(0.5, epoch=1, loss=2.34567, rate=12345.6)
        line.move(1.7, epoch=2, loss=1.0, rate=1.0)
    found = capsys.readouterr()
    assert found.out == "epoch 0: loss 3\n"
    assert " 25%|" in found.err
    last = re.split(r"[\r\n]", found.err.strip())[-1]
    assert last.startswith("adprior train: 100%|")
    assert last.endswith(", epoch 2, loss 1.000, 1 tokens/s")


def test_a_share_that_goes_back_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(0.5) as line:
        line.move(0.4, epoch=0, loss=1.0, rate=1.0)
    assert " 40%|" not in capsys.readouterr().err


def test_a_log_file_is_not_filled_with_states(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(0.0) as line:
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            line.move((time.monotonic() - began) / 9, epoch=0, loss=1.0, rate=1.0)
    states = [text for text in re.split(r"[\r\n]", capsys.readouterr().err) if "%|" in text]
    assert len(states) == 2  # the first and the last


ROW = {"epoch": 2, "loss": 3.0, "validation_loss": 2.5, "tokens": 9}


@pytest.mark.parametrize(
    ("more", "is_best", "line"),
    [
        ({}, False, "epoch 2: loss 3.0000, validation 2.5000"),
        ({}, True, "epoch 2: loss 3.0000, validation 2.5000 (best)"),
        (
            {"share": 0.126},
            False,
            "epoch 2, 13% of it (the time was over): loss 3.0000, validation 2.5000",
        ),
        (
            {"share": 0.5, "checked": 0.25},
            False,
            "epoch 2, 50% of it (the time was over): loss 3.0000, validation 2.5000 "
            "(of 25% of the users)",
        ),
    ],
)
def test_an_epochs_line_says_what_of_it_was_done(
    more: dict[str, float], is_best: bool, line: str
) -> None:
    assert describe_epoch(ROW | more, is_best=is_best) == line


@pytest.mark.parametrize(
    ("resumed", "told"), [(0, ", 90 s of reading and writing"), (2, ", in 3 runs")]
)
def test_the_last_line_says_where_the_time_went(resumed: int, told: str) -> None:
    position = Position(seconds=180, checks_seconds=36, resumed=resumed)
    found = describe_time(position, 270)
    assert found == f"2.4 minutes of training, 36 s of validation{told}"
