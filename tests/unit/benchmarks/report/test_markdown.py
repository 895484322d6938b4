from __future__ import annotations

from adprior_bench.report.markdown import report_markdown
from adprior_bench.report.plain import plain
from support.quality_report import report


def test_the_markdown_has_tables_and_links() -> None:
    text = report_markdown(plain(report()))
    assert "| ranker | recall@10 | gain | cases |\n| :-- | --: | --: | --: |" in text
    assert r"| popularity\|x \<b\> | 1.2 % [0.0, 2.5] | +1.0 pp [0.0, +2.0] | 1 |" in text
    assert "| **own \\[history\\]** | **50.0 %** |" in text
    assert "![Recall](recall.png)" in text
    assert "Made by `adprior bench --k <k>`." in text


def test_the_markdown_opens_with_the_verdict_and_ends_with_details() -> None:
    text = report_markdown(plain(report()))
    order = [
        "**Note.** Made &lt;quickly>.",
        "**Is it & worth it? Partly.** By 1 % [0, 2].",
        "Made by `adprior",
        "## Rankers",
        "![Recall](recall.png)",
        "## Rankers: details",
        "### A detail",
        "## Made of details",
        "A detail's note.",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
