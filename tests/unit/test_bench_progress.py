from __future__ import annotations

import pytest

from adprior_bench import progress
from adprior_bench.progress import boosting_bar, say, track


def test_short_work_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), desc="counting", unit="step")) == [0, 1, 2]
    with boosting_bar("boosting", 2) as callback:
        callback(None)
    assert capsys.readouterr().err == ""


def test_long_work_shows_how_much_is_done_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_DELAY_S", 0.0)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0.0)
    for _ in track(iter("abcd"), total=4, desc="spelling", unit="letter"):
        pass
    shown = capsys.readouterr().err.split("\r")
    assert any(line.startswith("spelling:  50%") and "2/4 [" in line for line in shown)
    assert all("<" in line for line in shown if "2/4" in line)


def test_what_is_said_begins_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    say("adprior bench quality", "one", "two")
    said = capsys.readouterr()
    assert said.err == "adprior bench quality: one\nadprior bench quality: two\n"
    assert said.out == ""
