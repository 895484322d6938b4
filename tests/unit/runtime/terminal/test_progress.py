from __future__ import annotations

import re

import pytest

from adprior_runtime.terminal import progress
from adprior_runtime.terminal.progress import track


def test_quick_work_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), desc="rows", unit="row")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_longer_work_has_a_bar_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUICK_S", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    items = track(iter("abcd"), desc="reading", unit="row", total=4)
    assert [next(items), next(items), next(items)] == ["a", "b", "c"]
    found = capsys.readouterr()
    assert found.out == ""
    last = re.split(r"[\r\n]", found.err.strip())[-1]
    assert re.search(r"^reading:  50%\|.*\| 2/4 \[.*<.*row", last)
