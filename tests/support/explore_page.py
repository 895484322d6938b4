"""What a person does on the page of ``adprior explore``, and what they see then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Locator, Page, expect

_DRAWN: Final = "performance.getEntriesByName('edit to forecast')"
LONG_IDS: Final = {"Acme": 2**53 + 1, "Acme Pets": 2**53 + 3}
"""Ids of the second bundle that a number of JavaScript would round."""
VIEWS: Final = ("forecast", "why", "ranking", "compare", "reports")


class ExplorePage:
    """The page in a browser."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, view: str) -> Locator:
        """Open a view with its tab; return its panel."""
        self.page.locator(f"#tab-{view}").click()
        return self.panel(view)

    def panel(self, view: str) -> Locator:
        return self.page.locator("#user-panel" if view == "user" else f"#panel-{view}")

    def pick(self, title: str) -> None:
        """Take an example, and wait for its forecast."""
        with self.new_forecast():
            self.page.locator("#examples").get_by_role("button", name=title, exact=True).click()

    def drawn_forecasts(self) -> int:
        """Return how many forecasts were drawn so far."""
        return int(self.page.evaluate(f"{_DRAWN}.length"))

    def await_forecast(self, *, after: int) -> None:
        """Return once more forecasts are drawn than ``after``."""
        self.page.wait_for_function(f"after => {_DRAWN}.length > after", arg=after)

    @contextmanager
    def new_forecast(self) -> Iterator[None]:
        """Wait, at the end of a ``with`` block, until the forecast that it caused is drawn."""
        before = self.drawn_forecasts()
        yield
        self.await_forecast(after=before)

    def paste(self, user: Mapping[str, Any]) -> None:
        """Put a user's JSON into the editor, without waiting for anything."""
        self.choose("JSON")
        self.page.locator("#user-json").fill(json.dumps(user))

    def show_cards(self) -> None:
        self.choose("Cards")

    def choose(self, label: str) -> None:
        """Choose one part of a switch."""
        self.page.get_by_role("radio", name=label, exact=True).check()

    def forecast_names(self) -> list[str]:
        return self.page.locator("#panel-forecast table.forecast tbody th").all_inner_texts()

    def event_field(self, index: int, name: str) -> Locator:
        return self.page.locator(f'[data-place="history {index} {name}"]')

    def rank(self, candidates: Sequence[tuple[int, float]]) -> Locator:
        """Rank candidates, and return the rows of the answer."""
        panel = self.open("ranking")
        text = "\n".join(f"{advertiser}, {logit}" for advertiser, logit in candidates)
        panel.locator("#candidates").fill(text)
        panel.get_by_role("button", name="Rank", exact=True).click()
        rows = panel.locator("tbody tr")
        expect(rows.first).to_be_visible()
        return rows

    def ranked_names(self) -> list[str]:
        return self.panel("ranking").locator("tbody th").all_inner_texts()

    def ranking_column(self, number: int) -> list[str]:
        """Return a column of numbers of the ranking, the first one is 0."""
        rows = self.panel("ranking").locator("tbody tr").all()
        return [row.locator("td.number").nth(number).inner_text() for row in rows]

    def is_wider_than_its_window(self) -> bool:
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))
