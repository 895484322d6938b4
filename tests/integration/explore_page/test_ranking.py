"""The ranking on the page of ``adprior explore``, in a real Chromium."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Route, expect

from support.browser import needs_chromium
from support.data_set import IDS, user
from support.explore_page import LONG_IDS, ExplorePage

pytestmark = [pytest.mark.triton, needs_chromium]


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
