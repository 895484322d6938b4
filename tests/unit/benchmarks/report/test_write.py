from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adprior_bench.report.plain import plain
from adprior_bench.report.plots import draw
from adprior_bench.report.write import write_report
from adprior_runtime.errors import InvalidInputError
from support.quality_report import plots, report


def test_every_file_is_there(tmp_path: Path) -> None:
    written = tmp_path / "evaluations" / "report"
    write_report(report(), written)
    images = {"reliability.png", "recall.png", "quota.png"}
    assert {path.name for path in written.iterdir()} == images | {
        "report.json",
        "report.md",
        "report.html",
    }
    assert json.loads((written / "report.json").read_text()) == plain(report())
    first: Any = plain(plots()[0])
    assert (written / "reliability.png").read_bytes() == draw(first)


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "report"
    shorter = report()
    shorter["sections"] = []
    write_report(report(), target)
    write_report(shorter, target)
    assert {path.name for path in target.iterdir()} == {"report.json", "report.md", "report.html"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not an earlier output"):
        write_report(report(), tmp_path / "other")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


def test_a_report_that_cannot_be_shown_leaves_the_earlier_one(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "report")
    wrong: Any = report()
    wrong["sections"][0]["content"][0]["rows"] = [["too short"]]
    with pytest.raises(ValueError, match="zip"):
        write_report(wrong, tmp_path / "report")
    assert (tmp_path / "report" / "quota.png").is_file()
