"""The user on the page of ``adprior explore``, in a real Chromium: examples, cards, JSON, undo."""

from __future__ import annotations

import bisect
import json

import pytest
from playwright.sync_api import Request, Route, expect

from adprior_client.user_context import user_to_json
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from support.browser import needs_chromium
from support.data_set import user
from support.explore_page import ExplorePage

pytestmark = [pytest.mark.triton, needs_chromium]


def test_an_edit_brings_a_forecast_and_shows_the_one_before(shown: ExplorePage) -> None:
    shown.pick("regular")
    before = shown.forecast_names()
    with shown.new_forecast():
        shown.event_field(8, "advertiser").fill("麦穗")
    expect(shown.panel("forecast").locator("thead")).to_contain_text("before")
    expect(shown.page.locator("#announcements")).to_contain_text("New forecast of 10")
    with shown.new_forecast():
        shown.page.locator("#undo").click()
    assert shown.forecast_names() == before
    expect(shown.event_field(8, "advertiser")).not_to_have_value("麦穗")


def test_the_forecast_before_an_edit_is_of_the_same_bundle(shown: ExplorePage) -> None:
    shown.pick("regular")
    with shown.new_forecast():
        shown.event_field(8, "advertiser").fill("麦穗")
    heading = shown.panel("forecast").locator("thead")
    expect(heading).to_contain_text("before")
    for bundle in ("Bundle B", "Bundle A"):
        with shown.new_forecast():
            shown.choose(bundle)
        expect(heading).not_to_contain_text("before")


def test_events_and_values_are_added_and_removed(shown: ExplorePage) -> None:
    shown.pick("newcomer")
    panel = shown.panel("user")
    with shown.new_forecast():
        panel.get_by_role("button", name="Add an event").click()
    expect(shown.event_field(0, "advertiser")).to_be_focused()
    with shown.new_forecast():
        shown.page.keyboard.type("Acme")
    acme = shown.page.get_by_role("rowheader", name="Acme", exact=True)
    expect(shown.panel("forecast").locator("tr").filter(has=acme)).to_contain_text("known")
    with shown.new_forecast():
        panel.get_by_role("button", name="Remove event 1").click()
    expect(panel).to_contain_text("No events")
    with shown.new_forecast():
        panel.get_by_role("button", name="Add a value").click()
    with shown.new_forecast():
        panel.get_by_role("button", name="Remove new_key").click()


def test_a_new_edit_aborts_the_request_before_it(shown: ExplorePage) -> None:
    shown.pick("regular")
    held: list[Route] = []
    aborted: list[Request] = []

    def hold(route: Route) -> None:
        held.append(route)

    def note(request: Request) -> None:
        aborted.append(request)

    shown.page.route("**/api/forecast", hold)
    shown.page.on("requestfailed", note)
    with shown.page.expect_request("**/api/forecast"):
        shown.event_field(8, "advertiser").fill("Acme")
    with shown.page.expect_request("**/api/forecast"), shown.page.expect_event("requestfailed"):
        shown.event_field(8, "advertiser").fill("Kite")
    assert [request.url for request in aborted] == [held[0].request.url]
    expect(shown.panel("forecast").locator("[aria-busy=true]")).to_be_visible()
    with shown.new_forecast():
        held[1].continue_()
    assert "regular" not in shown.page.url


def test_of_two_quick_clicks_on_examples_the_last_one_counts(shown: ExplorePage) -> None:
    shown.page.route("**/api/examples/regular", lambda route: None)  # its answer never comes
    examples = shown.page.locator("#examples")
    with shown.page.expect_request("**/api/examples/regular"):
        examples.get_by_role("button", name="regular", exact=True).click()
    with shown.page.expect_event("requestfailed"):
        shown.pick("newcomer")
    expect(shown.page.locator("#user-error")).to_be_hidden()
    expect(shown.panel("user")).to_contain_text("No events")


def test_text_of_a_user_is_never_read_as_html(shown: ExplorePage) -> None:
    name = "<img src=x onerror=alert(1)>"
    shown.paste(user(2) | {"profile": {name: name}})
    shown.show_cards()
    expect(shown.page.locator("#user-body input.key")).to_have_value(name)
    assert shown.page.locator("#user-body img").count() == 0


def test_wrong_json_is_named_and_changes_nothing(shown: ExplorePage) -> None:
    shown.pick("regular")
    names = shown.forecast_names()
    shown.choose("JSON")
    shown.page.locator("#user-json").fill('{"profile": {},\n "history": [}')
    expect(shown.page.locator("#user-error")).to_contain_text("not JSON: look at line 2")
    assert shown.forecast_names() == names
    shown.show_cards()
    expect(shown.page.locator("#user-error")).to_be_hidden()
    with shown.new_forecast():
        shown.paste(user(1))


def _size_in_bytes(events: int) -> int:
    return len(json.dumps(user(events), ensure_ascii=False, separators=(",", ":")).encode())


def test_a_user_of_256_kib(shown: ExplorePage) -> None:
    most = MAX_CONTEXT_BYTES - 16  # the edit below makes it longer
    events = bisect.bisect_right(range(10_000), most, key=_size_in_bytes) - 1
    large = user(events)
    assert MAX_CONTEXT_BYTES - 1024 < len(user_to_json(large)) <= most
    with shown.new_forecast():
        shown.paste(large)
    shown.show_cards()
    cards = shown.panel("user").locator(".event")
    expect(cards).to_have_count(60)
    with shown.new_forecast():
        shown.event_field(events - 1, "advertiser").fill("Kite")
    shown.panel("user").get_by_role("button", name="Show 60 more").click()
    expect(cards).to_have_count(120)
