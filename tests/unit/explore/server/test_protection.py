"""Who may ask, and what every answer says to the browser."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from adprior_explore.reports import find_reports
from adprior_explore.server.protection import Access
from support.client_calls import SECRET
from support.fake_triton import FakeTriton
from unit.explore.conftest import OpenPage

TOKEN = "0123456789abcdef"
PATHS = ("/", "/api/state", "/api/examples/dog_owner", "/reports/report-1")


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test", "10.0.0.1:80", "", "[", "::"])
@pytest.mark.parametrize("path", PATHS)
def test_another_name_of_this_machine_is_refused(page: TestClient, host: str, path: str) -> None:
    response = page.get(path, headers={"host": host})
    assert response.status_code == 403
    assert "localhost" in response.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8765", "[::1]:8765"])
def test_loopback_is_accepted_at_any_port(page: TestClient, host: str) -> None:
    assert page.get("/api/state", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "http://localhost:1", "http://", "http://["]
)
def test_another_pages_request_is_refused(page: TestClient, origin: str) -> None:
    response = page.post("/api/forecast", json={}, headers={"origin": origin})
    assert response.status_code == 403
    assert page.post("/api/why", json={}, headers={"origin": "http://localhost"}).status_code == 400


def test_a_browser_may_load_nothing_from_elsewhere(page: TestClient) -> None:
    for path in PATHS:
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
        assert "set-cookie" not in headers


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text("<title>Report</title>")
    return path


def test_with_a_token_only_the_static_files_are_open(
    triton: FakeTriton, open_page: OpenPage, report: Path
) -> None:
    parts: dict[str, Any] = {"access": Access(token=TOKEN), "reports": find_reports([report])}
    with open_page(triton, wait=False, **parts) as page:
        assert page.get("/").status_code == 200
        for path in PATHS[1:]:
            assert page.get(path).status_code == 401
        wrong = {"authorization": f"Bearer {TOKEN}0"}
        assert page.get("/api/state", headers=wrong).status_code == 401
        odd = {b"authorization": "Bearer żółć".encode()}
        assert page.get("/api/state", headers=odd).status_code == 401
        assert page.post("/api/forecast", json={}).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}", "host": "gpu.example:8765"}
        response = page.get("/api/state", headers=right)
        assert response.status_code == 200
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/reports/" in cookie
        assert TOKEN not in cookie
        named = {"cookie": cookie.partition(";")[0]}
        assert page.get("/reports/report-1", headers=named).status_code == 200
        assert (
            page.get("/reports/report-1", headers={"cookie": "adprior_reports=x"}).status_code
            == 401
        )
        assert page.get("/api/state", headers=named).status_code == 401


def test_a_bug_is_logged_without_its_message(
    page: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr("adprior_explore.forecast.mark_new", fail)
    user = {"profile": {}, "history": [], "as_of": "2024-05-31"}
    with caplog.at_level(logging.DEBUG):
        response = page.post("/api/forecast", json={"side": "a", "user": user})
    assert response.status_code == 500
    assert SECRET not in response.text
    assert "bug: ValueError at " in caplog.text
    assert SECRET not in caplog.text
