"""The page of ``adprior explore`` in a real Chromium, with real tritonservers behind it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Route, expect

from support.browser import needs_chromium
from support.explore_page import VIEWS, ExplorePage

pytestmark = [pytest.mark.triton, needs_chromium]


def test_every_view_says_what_to_do_while_nobody_is_picked(shown: ExplorePage) -> None:
    expect(shown.panel("user")).to_contain_text("Nobody is picked yet.")
    for view in ("forecast", "why", "ranking", "compare"):
        expect(shown.open(view)).to_contain_text("Pick an example or paste a user's JSON")


def test_a_forecast_is_drawn_with_its_certificate_and_times(shown: ExplorePage) -> None:
    shown.pick("regular")
    panel = shown.panel("forecast")
    assert len(shown.forecast_names()) == 10
    expect(panel.locator(".badge")).to_contain_text("Proved: the 10 most probable advertisers")
    expect(panel.get_by_text("● known").first).to_be_visible()
    expect(panel.get_by_text("◆ new").first).to_be_visible()
    expect(panel.locator(".legend", has_text="rounding")).to_contain_text("nats")
    assert (
        _box(panel.locator(".gap .margin"))["width"]
        < _box(panel.locator(".gap .span").first)["width"]
    )
    expect(panel.get_by_text("llm engine")).to_be_visible()
    widths = {}
    for scale in ("Log scale", "Linear"):
        shown.choose(scale)
        fills = panel.locator("table.forecast .bar-fill")
        widths[scale] = [fill["width"] for fill in map(_box, fills.all())]
        assert widths[scale] == sorted(widths[scale], reverse=True)
    assert widths["Log scale"] != widths["Linear"]


def test_what_a_server_leaves_unsaid_is_not_explained_by_a_guess(shown: ExplorePage) -> None:
    def answer_without(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        unknown = {"exact": True, "gap_nats": None, "best_other": None, "best_other_bound": 0.01}
        found["certificate"] |= unknown | {"asked_one_more": False}
        route.fulfill(response=answer, json=found | {"steps": None, "server_ms": None})

    shown.page.route("**/api/forecast", answer_without)
    shown.pick("regular")
    panel = shown.panel("forecast")
    expect(panel).to_contain_text("The bundle forecasts no more advertisers than these")
    expect(panel).not_to_contain_text("The catalogue has no further advertiser")
    expect(panel).to_contain_text("do not tell the times of this request apart")


def _box(locator: Any) -> dict[str, float]:
    box: dict[str, float] = locator.bounding_box()
    return box


def test_why_shows_which_events_carry_the_forecast(shown: ExplorePage) -> None:
    shown.pick("regular")
    panel = shown.open("why")
    panel.get_by_role("button", name="Leave out each part").click()
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(10)  # the profile and nine events
    moved = [
        float(text.removesuffix(" %"))
        for text in rows.locator(".number:nth-child(2)").all_inner_texts()
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0
    expect(shown.panel("user").locator(".weight:visible")).to_have_count(9)
    with shown.new_forecast():
        shown.event_field(8, "advertiser").fill("Kite")
    expect(panel).to_contain_text("of the forecast before the last change")
    expect(shown.panel("user").locator(".weight:visible")).to_have_count(0)


def test_two_bundles_side_by_side(shown: ExplorePage) -> None:
    shown.pick("regular")
    panel = shown.open("compare")
    expect(panel).to_contain_text("overlap at 5")
    expect(panel.get_by_text("only A").first).to_be_visible()
    panel.get_by_role("button", name="Compare over the examples").click()
    expect(panel).to_contain_text("same first advertiser")
    expect(panel.locator("tr", has_text="newcomer")).to_be_visible()
    note = panel.get_by_text("of another number of advertisers")
    expect(note).to_have_count(0)
    with shown.new_forecast():
        shown.open("forecast").get_by_label("Number of advertisers").fill("4")
    shown.open("compare")
    expect(note).to_be_visible()
    panel.locator("input[type=file]").set_input_files(
        {"name": "users.jsonl", "mimeType": "application/json", "buffer": b"{}\n{"}
    )
    expect(panel).to_contain_text("The file is no JSON")


@pytest.mark.parametrize("title", ["Worth & <cost>", "Server under load: bundle 0123456789ab"])
def test_a_report_of_a_benchmark_opens_in_a_frame(shown: ExplorePage, title: str) -> None:
    panel = shown.open("reports")
    panel.get_by_role("button", name=title, exact=True).click()
    frame = panel.frame_locator("iframe")
    heading = frame.get_by_role("heading", name=title, exact=True)
    expect(heading).to_be_visible()
    assert heading.evaluate("h => getComputedStyle(h).fontSize") == "30.4px"  # its own styles
    pictures = frame.locator("img")
    expect(pictures).to_have_count(3)
    assert all(picture.evaluate("i => i.decode().then(() => true)") for picture in pictures.all())
    expect(panel.get_by_role("link")).to_have_attribute("target", "_blank")


def test_a_keyboard_is_enough(shown: ExplorePage) -> None:
    keyboard = shown.page.keyboard
    focused = shown.page.locator(":focus")
    expect(shown.page.get_by_role("button", name="regular")).to_be_visible()
    keyboard.press("Tab")
    expect(focused).to_have_text("Skip to the forecast")
    for _ in range(9):
        keyboard.press("Tab")
        if focused.inner_text() == "regular":
            break
    with shown.new_forecast():
        keyboard.press("Enter")
    shown.page.locator("#tab-forecast").focus()
    for view in (*VIEWS[1:], VIEWS[0]):
        keyboard.press("ArrowRight")
        expect(shown.page.locator(f"#tab-{view}")).to_be_focused()
        expect(shown.panel(view)).to_be_visible()
    keyboard.press("Tab")
    expect(focused).to_have_attribute("aria-label", "Number of advertisers")
    with shown.new_forecast():
        keyboard.press("Control+A")
        keyboard.type("4")
    assert len(shown.forecast_names()) == 4
