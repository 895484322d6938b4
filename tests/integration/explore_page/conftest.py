"""Two served bundles, `adprior explore` on both, and Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser

from adprior_bench.report.write import write_report
from adprior_bench.server.measurement import ROW_KEYS
from adprior_bench.server.server_report import make_report
from adprior_runtime.server.model_counters import STEPS
from adprior_runtime.server.tritonserver import TritonServer
from support.browser import WatchedPage, open_browser, open_page
from support.data_set import ADVERTISERS, IDS, user
from support.explore_page import LONG_IDS, ExplorePage
from support.explorer import Explorer, explore
from support.quality_report import report as quality_report
from support.servers import build_repository, start_server
from support.shared_files import MakeOnce

_LOAD: Final = {
    **dict.fromkeys(ROW_KEYS),
    "scenario": "live_ranking", "mode": "closed", "throughput": 25.0, "p50_ms": 10.0,
    "p95_ms": 20.0, "p99_ms": 30.0, "errors": 0, "without_figures": 0, "requests": 100,
    "ranges": {}, "cpu_s_per_request": 0.04,
    "cpu_s_by_process": {"tritonserver": 0.001, "tokenizer": 0.002},
    "step_ms": {"tokenizer": dict.fromkeys(STEPS, 0.25)}, "batch_size": {"tokenizer": 1.5},
}  # fmt: skip
_SETTING: Final = {
    "bundle_id": "0123456789ab", "perf_analyzer": "9.9", "users": "made up", "requests": 12,
    "seconds": 1.0, "rounds": 1,
    "machine": {"processor": "abacus", "cpus": 2, "load_average": 0.1, "onnxruntime": "1"},
}  # fmt: skip


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
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Reports of both benchmarks, as their own writer writes them, with made-up figures."""
    place = tmp_path_factory.mktemp("reports")
    loads = [_LOAD | {"concurrency_or_rate": in_flight} for in_flight in (1, 4)]
    write_report(quality_report(), place / "quality")
    write_report(make_report(loads, _SETTING), place / "server")
    return [place / "quality", place / "server"]


@pytest.fixture(scope="session")
def explorer(
    server: TritonServer, other_server: TritonServer, users: list[Path], reports: list[Path]
) -> Iterator[Explorer]:
    options: list[str | Path] = ["--url", server.grpc_address, "--port", "0"]
    options += ["--bundle-b", other_server.grpc_address, "--users", *users]
    options += [f"--report={report}" for report in reports]
    with explore(*options) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after each file: while Playwright runs, its thread has an event loop."""
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
