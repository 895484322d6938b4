from __future__ import annotations

import pytest

from adprior_bench.data.progress import boosting_bar, say


def test_short_boosting_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with boosting_bar("boosting", 2) as callback:
        callback(None)
    assert capsys.readouterr().err == ""


def test_what_is_said_begins_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    say("adprior bench quality", "one", "two")
    said = capsys.readouterr()
    assert said.err == "adprior bench quality: one\nadprior bench quality: two\n"
    assert said.out == ""
