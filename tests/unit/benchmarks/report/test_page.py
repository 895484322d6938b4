from __future__ import annotations

import base64
from html.parser import HTMLParser

from adprior_bench.report.page import report_page
from adprior_bench.report.plain import plain
from support.quality_report import report


class _Page(HTMLParser):
    """Collects a page's text and images, and refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data


def test_the_page_is_well_formed_and_holds_its_plots() -> None:
    names = ("reliability", "recall", "quota")
    images = {name: name.encode() for name in names}
    text = report_page(plain(report()), images)
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.cells == [
        "popularity|x <b>", "1.2 % [0.0, 2.5]", "+1.0 pp [0.0, +2.0]", "1",
        "own [history]", "50.0 %", "\N{EN DASH}", "12,345", "a detail", "another",
    ]  # fmt: skip
    assert [base64.b64decode(source.split(",")[1]) for source in page.sources] == [
        images[name] for name in names
    ]
    assert "<code>adprior bench --k &lt;k&gt;</code>" in text
    opening = '<p class="opening"><strong>Is it &amp; worth it? Partly.</strong> By 1 % [0, 2].</p>'
    order = ["Made &lt;quickly&gt;.", opening, "<nav>", ">Rankers</h2>", ">Rankers: details</h2>"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "http" not in text.replace("base64", "")
    assert '<tr class="strong"><td>own [history]' in text
