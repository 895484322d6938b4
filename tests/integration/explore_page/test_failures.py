"""The page of ``adprior explore`` in a real Chromium when something fails, and comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer
from support.browser import needs_chromium, open_page
from support.data_set import user
from support.explore_page import ExplorePage
from support.explorer import Explorer, explore
from support.servers import choose_ports, start_server

pytestmark = [pytest.mark.triton, needs_chromium]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "regular.json"
    path.write_text(json.dumps(user(5)), encoding="utf-8")
    return path


def test_a_killed_server_is_named_and_its_return_is_noticed(
    browser: Browser, repository: Path, example: Path
) -> None:
    ports = choose_ports()
    with (
        start_server(repository, **ports) as server,
        explore("--url", server.grpc_address, "--port", "0", "--users", example) as explorer,
    ):
        watched = open_page(browser, explorer.url)
        shown = ExplorePage(watched.page)
        shown.pick("regular")
        names = shown.forecast_names()
        server.kill()
        server.process.wait()
        shown.event_field(4, "advertiser").fill("Kite")
        banner = shown.page.locator("#banner")
        expect(banner).to_contain_text(f"Server A, {server.grpc_address}")
        expect(shown.panel("forecast").get_by_role("alert")).to_be_visible()
        assert shown.forecast_names() == names  # the old forecast stays, dimmed
        drawn = shown.drawn_forecasts()
        with start_server(repository, **ports):
            shown.await_forecast(after=drawn)
            expect(banner).to_be_hidden()
            expect(shown.panel("forecast").get_by_role("alert")).to_have_count(0)
        watched.close(failed_requests=True)


def test_a_refused_user_is_marked_where_it_is_wrong(browser: Browser, explorer: Explorer) -> None:
    watched = open_page(browser, explorer.url)
    shown = ExplorePage(watched.page)
    shown.pick("regular")
    shown.event_field(3, "time").fill("yesterday")
    expect(shown.page.locator("#user-error")).to_contain_text("history[3].time")
    expect(shown.event_field(3, "time")).to_have_attribute("aria-invalid", "true")
    with shown.new_forecast():
        shown.event_field(3, "time").fill("2024-02-01")
    expect(shown.page.locator("#user-error")).to_be_hidden()
    watched.close(failed_requests=True)


def test_a_page_with_a_token_asks_for_it(
    browser: Browser, server: TritonServer, example: Path, tmp_path: Path
) -> None:
    token, file = "a-token-of-the-page-with-thirty-two-characters", tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    file.chmod(0o600)
    options: list[str | Path] = ["--url", server.grpc_address, "--port", "0"]
    options += ["--page-token-file", file]
    with explore(*options, "--users", example, token=token) as explorer:
        watched = open_page(browser, explorer.url)
        dialog = watched.page.get_by_role("dialog", name="This page needs a token")
        for given in ("ключ", "a wrong one", "a-wrong-one", token):
            expect(dialog).to_be_visible()
            dialog.get_by_label("Token").fill(given)
            dialog.get_by_role("button", name="Open").click()
        expect(dialog).to_be_hidden()
        ExplorePage(watched.page).pick("regular")
        expect(dialog).to_be_hidden()
        watched.page.reload()
        ExplorePage(watched.page).pick("regular")
        assert token not in watched.page.url
        watched.close(failed_requests=True)


def test_the_page_waits_for_its_own_server(
    browser: Browser, server: TritonServer, example: Path
) -> None:
    (port,) = free_ports(1)
    options = ["--url", server.grpc_address, "--port", str(port), "--users", str(example)]
    with explore(*options) as explorer:
        watched = open_page(browser, explorer.url)
        shown = ExplorePage(watched.page)
        shown.pick("regular")
    shown.event_field(4, "advertiser").fill("Kite")
    expect(shown.page.locator("#banner")).to_contain_text("adprior explore does not answer")
    drawn = shown.drawn_forecasts()
    with explore(*options):
        shown.await_forecast(after=drawn)
        expect(shown.page.locator("#banner")).to_be_hidden()
        expect(shown.panel("forecast").get_by_role("alert")).to_have_count(0)
    watched.close(failed_requests=True)
