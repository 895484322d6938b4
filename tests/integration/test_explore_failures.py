"""The page of ``adprior explore`` in a real Chromium when something fails, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support.browser import needs_chromium, open_browser, open_page
from support.data_set import user
from support.explore_page import ExplorePage
from support.explorer import Explorer, explore
from support.servers import choose_ports, start_server

pytestmark = [pytest.mark.triton, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "regular.json"
    path.write_text(json.dumps(user(5)), encoding="utf-8")
    return path


def test_a_killed_server_is_named_and_its_return_is_noticed(
    browser: Browser, repository: Path, example: Path
) -> None:
    ports = choose_ports()
    server = start_server(repository, **ports)
    with explore("--url", server.grpc_address, "--port", "0", "--users", example) as explorer:
        watched = open_page(browser, explorer.url)
        shown = ExplorePage(watched.page)
        shown.pick("regular")
        names = shown.forecast_names()
        server.stop()
        shown.event_field(4, "advertiser").fill("Kite")
        banner = shown.page.locator("#banner")
        expect(banner).to_contain_text(f"Server A, {server.grpc_address}")
        expect(shown.panel("forecast").get_by_role("alert")).to_be_visible()
        assert shown.forecast_names() == names  # the old forecast stays, dimmed
        with shown.new_forecast(), start_server(repository, **ports):
            expect(banner).to_be_hidden(timeout=60_000)
            expect(shown.panel("forecast").get_by_role("alert")).to_have_count(0)
        watched.page.context.close()
    watched.check(failed_requests=True)


def test_a_refused_user_is_marked_where_it_is_wrong(
    browser: Browser, server: object, example: Path, explorer: Explorer
) -> None:
    watched = open_page(browser, explorer.url)
    shown = ExplorePage(watched.page)
    shown.pick("regular")
    shown.event_field(3, "time").fill("yesterday")
    expect(shown.page.locator("#user-error")).to_contain_text("history[3].time")
    expect(shown.event_field(3, "time")).to_have_attribute("aria-invalid", "true")
    with shown.new_forecast():
        shown.event_field(3, "time").fill("2024-02-01")
    expect(shown.page.locator("#user-error")).to_be_hidden()
    watched.page.context.close()
    watched.check(failed_requests=True)
