"""The page of ``adprior explore`` in a real Chromium, with real tritonservers behind it."""

from __future__ import annotations

import bisect
import json
from typing import Any

import pytest
from playwright.sync_api import Request, Route, expect

from adprior_client.user_context import user_to_json
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from support.browser import needs_chromium
from support.data_set import IDS, user
from support.explore_page import LONG_IDS, VIEWS, ExplorePage

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


def test_a_ranking_shows_before_and_after_and_a_stored_forecast(shown: ExplorePage) -> None:
    shown.pick("regular")
    rows = shown.rank([(IDS["Acme"], -3), (IDS["Kite"], -2.5), (999_999, -2.75)])
    expect(rows).to_have_count(3)
    panel = shown.panel("ranking")
    expect(panel.locator("tr", has_text="999999")).to_contain_text("not in the catalogue")
    panel.get_by_role("button", name="Take the forecast's advertisers").click()
    expect(rows).to_have_count(10)
    panel.get_by_role("button", name="Keep this forecast as the stored one").click()
    expect(panel.locator("thead")).to_contain_text("stored: adds")
    names = shown.ranked_names()
    live, stored = shown.ranking_column(3), shown.ranking_column(5)
    assert live == stored
    with shown.new_forecast():
        shown.event_field(8, "advertiser").fill("Kite")
    expect(panel.locator(".waiting")).to_have_count(0)
    assert dict(zip(shown.ranked_names(), shown.ranking_column(5), strict=True)) == dict(
        zip(names, stored, strict=True)
    )
    assert shown.ranking_column(3) != live
    panel.get_by_role("button", name="Forget it").click()
    expect(panel.locator("thead")).not_to_contain_text("stored")


def test_a_user_id_without_a_stored_forecast_is_noted(shown: ExplorePage) -> None:
    def claim_a_store(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"stored": True})

    shown.page.route("**/api/state", claim_a_store)
    shown.page.reload()
    shown.pick("regular")
    shown.rank([(IDS["Acme"], -3)])
    panel = shown.panel("ranking")
    expect(panel).not_to_contain_text("No stored forecast")
    panel.get_by_label("id of a user").fill("user-1")
    panel.get_by_label("id of a user").press("Enter")
    expect(panel).to_contain_text("No stored forecast has this user id")


def test_ids_of_64_bits_keep_their_digits(shown: ExplorePage) -> None:
    with shown.new_forecast():
        shown.paste(user(9))
    with shown.new_forecast():
        shown.choose("Bundle B")
    with shown.new_forecast():
        shown.page.get_by_label("Number of advertisers").fill("20")
    panel = shown.open("ranking")
    with shown.page.expect_request("**/api/rank") as asked:
        panel.get_by_role("button", name="Take the forecast's advertisers").click()
    candidates = json.loads(asked.value.post_data or "")["candidates"]
    given = {str(each["advertiser_id"]) for each in candidates}
    assert {str(each) for each in LONG_IDS.values()} < given
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(20)
    expect(rows.filter(has_text="not in the catalogue")).to_have_count(0)
    panel.get_by_role("button", name="Keep this forecast as the stored one").click()
    expect(panel.locator("thead")).to_contain_text("stored: adds")
    pasted = shown.rank([(each, -3) for each in LONG_IDS.values()])
    expect(pasted).to_have_count(2)
    for name, advertiser_id in LONG_IDS.items():
        row = pasted.filter(has_text=str(advertiser_id))
        expect(row).to_contain_text(name)
        expect(row).not_to_contain_text("not in the catalogue")
    assert shown.ranking_column(3) == shown.ranking_column(5)


def test_a_wrong_candidate_is_named(shown: ExplorePage) -> None:
    shown.pick("regular")
    panel = shown.open("ranking")
    panel.locator("#candidates").fill("101, -3\n102 minus three")
    panel.get_by_role("button", name="Rank", exact=True).click()
    expect(panel.locator("#candidates-error")).to_contain_text("line 2: found 3 values")


def test_a_thousand_candidates(shown: ExplorePage) -> None:
    shown.pick("regular")
    ids = [*IDS.values(), *range(10_000, 10_970)]
    rows = shown.rank([(each, -3 - place / 1000) for place, each in enumerate(ids)])
    expect(rows).to_have_count(100)
    shown.panel("ranking").get_by_role("button", name="Show all 1,000").click()
    expect(rows).to_have_count(1000)


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
