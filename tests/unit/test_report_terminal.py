from __future__ import annotations

from adprior_bench.quality.report.plain import plain
from adprior_bench.quality.report.terminal import report_text
from unit.quality_report import report


def test_the_terminal_has_the_tables() -> None:
    lines = report_text(plain(report())).splitlines()
    assert lines[:2] == ["Worth & <cost>", "=============="]
    assert "popularity|x <b>  1.2 % [0.0, 2.5]  +1.0 pp [0.0, +2.0]       1" in lines
    assert any(line.startswith("own [history] *") and line.endswith("12,345") for line in lines)
    assert "Of `users`." in lines
