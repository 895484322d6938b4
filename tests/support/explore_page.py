"""What a person does on the page of ``adprior explore``, and what they see then."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from playwright.sync_api import Locator, Page, expect

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

    def new_forecast(self) -> Any:
        """Wait, at the end of a ``with`` block, until the forecast that it caused is drawn."""
        return _NewForecast(self.page)

    def paste(self, user: Mapping[str, Any]) -> None:
        """Put a user's JSON into the editor, without waiting for anything."""
        self.page.get_by_text("JSON", exact=True).click()
        self.page.locator("#user-json").fill(json.dumps(user))

    def show_cards(self) -> None:
        self.page.get_by_text("Cards", exact=True).click()

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

    def is_wider_than_its_window(self) -> bool:
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))


class _NewForecast:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._before = 0

    def __enter__(self) -> None:
        self._before = self._drawn()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            script = "before => performance.getEntriesByName('edit to forecast').length > before"
            self._page.wait_for_function(script, arg=self._before)

    def _drawn(self) -> int:
        script = "performance.getEntriesByName('edit to forecast').length"
        return int(self._page.evaluate(script))
