from __future__ import annotations

from pathlib import Path

from adprior_bench.report.plain import plain
from adprior_bench.report.terminal import report_text
from support.quality_report import report


def test_the_terminal_has_the_tables() -> None:
    lines = report_text(plain(report())).splitlines()
    assert lines[:2] == ["Worth & <cost>", "=============="]
    assert "popularity|x <b>  1.2 % [0.0, 2.5]  +1.0 pp [0.0, +2.0]       1" in lines
    assert any(line.startswith("own [history] *") and line.endswith("12,345") for line in lines)
    assert "Of `users`." in lines


def test_the_terminal_opens_with_the_verdict_and_leaves_details_out() -> None:
    lines = report_text(plain(report()), Path("out")).splitlines()
    assert lines[2:4] == [
        "Note. Made <quickly>.",
        "Is it & worth it? Partly. By 1 % [0, 2].",
    ]
    assert not {"A detail", "Made of details", "A note | with <signs>."} & set(lines)
    assert lines[-1] == "2 more tables, all plots: in out/report.html"
    assert report_text(plain(report())).endswith("all plots: --output DIR writes them")
