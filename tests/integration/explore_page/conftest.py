"""Two served bundles, `adprior explore` on both, and Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from adprior_runtime.server.tritonserver import TritonServer
from support.browser import WatchedPage, open_browser, open_page
from support.data_set import ADVERTISERS, IDS, user
from support.explore_page import LONG_IDS, ExplorePage
from support.explorer import Explorer, explore
from support.servers import build_repository, start_server
from support.shared_files import MakeOnce

_REPORT = """<!doctype html><html lang="en"><head><title>Quality of a bundle</title>
<style>h1 { color: navy; }</style></head><body><h1>Quality of a bundle</h1></body></html>"""


@pytest.fixture(scope="session")
def other_server(bundle: Path, make_once: MakeOnce) -> Iterator[TritonServer]:
    """A second bundle: the same model with the first 20 advertisers only, two with long ids."""
    ids = IDS | LONG_IDS

    def build(place: Path) -> None:
        catalogue = place / "catalogue.csv"
        rows = [f'{ids[name]},"{name}"' for name in ADVERTISERS[:20]]
        catalogue.write_text("\n".join(["advertiser_id,name", *rows]), encoding="utf-8")
        build_repository(bundle, place / "repository", "--catalogue", str(catalogue))

    with start_server(make_once("explored", build) / "repository") as running:
        yield running


@pytest.fixture(scope="session")
def users(make_once: MakeOnce) -> list[Path]:
    """Files of a user with nine events, and of one without any."""
    documents = {"regular": user(9), "newcomer": user(0)}

    def write(place: Path) -> None:
        for name, document in documents.items():
            (place / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")

    place = make_once("explored-users", write)
    return [place / f"{name}.json" for name in documents]


@pytest.fixture(scope="session")
def explorer(
    server: TritonServer,
    other_server: TritonServer,
    users: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Explorer]:
    report = tmp_path_factory.mktemp("report") / "report.html"
    report.write_text(_REPORT, encoding="utf-8")
    options: list[str | Path] = ["--url", server.grpc_address, "--port", "0"]
    options += ["--bundle-b", other_server.grpc_address, "--report", report, "--users", *users]
    with explore(*options) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def watched(browser: Browser, explorer: Explorer) -> Iterator[WatchedPage]:
    """A wide page; console errors and outside requests fail its test."""
    opened = open_page(browser, explorer.url)
    yield opened
    opened.close()


@pytest.fixture
def shown(watched: WatchedPage) -> ExplorePage:
    return ExplorePage(watched.page)
