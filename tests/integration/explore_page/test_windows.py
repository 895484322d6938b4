"""The page of ``adprior explore`` in narrow and wide windows, light and dark, with axe."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from support.browser import NARROW, WIDE, Scheme, accessibility_problems, needs_chromium, open_page
from support.data_set import IDS
from support.explore_page import VIEWS, ExplorePage
from support.explorer import Explorer

pytestmark = [pytest.mark.triton, needs_chromium]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_axe_finds_nothing_serious(
    browser: Browser, explorer: Explorer, scheme: Scheme, size: tuple[int, int]
) -> None:
    watched = open_page(browser, explorer.url, size, color_scheme=scheme)
    shown = ExplorePage(watched.page)
    found = accessibility_problems(watched.page)
    shown.pick("regular")
    if size == NARROW:
        expect(shown.page.locator("#glance")).to_be_visible()
        found += accessibility_problems(watched.page)
    shown.open("why").get_by_role("button", name="Leave out each part").click()
    expect(shown.panel("why").locator("tbody tr").first).to_be_visible()
    shown.rank([(IDS["Acme"], -3), (999_999, -2.75)])
    shown.open("compare").get_by_role("button", name="Compare over the examples").click()
    expect(shown.panel("compare")).to_contain_text("same first advertiser")
    for view in VIEWS:
        shown.open(view)
        found += accessibility_problems(watched.page)
        assert not shown.is_wider_than_its_window(), view
    watched.close()
    assert not found


def test_a_narrow_window_shows_the_user_or_a_view(browser: Browser, explorer: Explorer) -> None:
    watched = open_page(browser, explorer.url, NARROW)
    shown = ExplorePage(watched.page)
    shown.pick("regular")
    expect(shown.page.locator("#panels")).to_be_hidden()
    shown.open("forecast")
    expect(shown.panel("user")).to_be_hidden()
    watched.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    expect(shown.panel("user")).to_be_visible()
    expect(shown.panel("forecast")).to_be_visible()
    expect(shown.page.locator("#tab-user")).to_be_hidden()
    watched.close()
