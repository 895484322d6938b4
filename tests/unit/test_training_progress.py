from __future__ import annotations

import re

import pytest

from adprior_build.training_progress import ProgressLine


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
