"""``adprior pull`` from a web server: parts, broken connections, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adprior_runtime.delivery import fetch, staging
from support.deliveries import KB, Adprior, contents, write_repository
from support.web_server import WebServer, running_web_server

LARGE_BYTES = 250_001
"""Three parts of 100 kB."""


@pytest.fixture
def large(adprior: Adprior, tmp_path: Path) -> Path:
    """A repository that was pushed to ``store``."""
    made = write_repository(tmp_path / "large", model_bytes=LARGE_BYTES)
    adprior("push", made, tmp_path / "store")
    return made


@pytest.fixture(params=[True, False], ids=["ranges", "whole files only"])
def web(request: pytest.FixtureRequest, tmp_path: Path, large: Path) -> Iterator[WebServer]:
    with running_web_server(tmp_path / "store", has_ranges=request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def small_parts_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", 100 * KB)
    monkeypatch.setattr(fetch, "_WAITS_S", (0.01, 0.01, 0.01))


def test_a_repository_arrives_once(
    adprior: Adprior, web: WebServer, large: Path, tmp_path: Path
) -> None:
    pulled = adprior("pull", web.url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(large)
    assert LARGE_BYTES < pulled["fetched_bytes"] < LARGE_BYTES + 12 * KB
    assert web.sent_bytes < pulled["fetched_bytes"] + 10_000  # the tag and the version


def test_broken_connections_are_tried_again(
    adprior: Adprior, web: WebServer, large: Path, tmp_path: Path
) -> None:
    web.fault = lambda path, earlier: (
        ("cut", 503)[earlier] if earlier < 2 and "/blobs/" in path else None
    )
    adprior("pull", web.url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(large)


def test_the_tag_and_the_version_are_tried_again(
    adprior: Adprior, web: WebServer, large: Path, tmp_path: Path
) -> None:
    web.fault = lambda path, earlier: 503 if earlier < 1 and "/blobs/" not in path else None
    adprior("pull", web.url, tmp_path / "target")
    assert contents(tmp_path / "target") == contents(large)


def test_a_reader_who_may_not_list(
    adprior: Adprior, web: WebServer, large: Path, tmp_path: Path
) -> None:
    """S3 tells such a reader of a missing object that there is no permission."""
    store = tmp_path / "store"
    web.fault = lambda path, _earlier: None if (store / path[1:]).is_file() else 403
    listed = adprior("push", "--list", store)[0]
    for name in (listed["version"][:12], listed["bundle_id"]):
        pulled = adprior("pull", web.url, tmp_path / "target", "--version", name)
        assert pulled["version"] == listed["version"]
    error = adprior.error("pull", web.url, tmp_path / "target", "--version", "canary")
    assert error.startswith(f"adprior pull: {web.url}/tags/canary.json: no permission")


def test_a_pull_that_failed_continues(
    adprior: Adprior, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TRANSFERS", 1)
    target = tmp_path / "target"
    with running_web_server(tmp_path / "store") as web:
        blobs = sorted((tmp_path / "store" / "blobs").rglob("*"), key=lambda p: p.stat().st_size)
        model = blobs[-1].name
        web.fault = lambda path, earlier: 500 if path.endswith(model) and earlier > 1 else None
        assert "HTTP status 500" in adprior.error("pull", web.url, target)
        assert not target.exists()
        web.fault = lambda _path, _earlier: None
        before = web.sent_bytes
        pulled = adprior("pull", web.url, target)
        assert contents(target) == contents(large)
        assert pulled["fetched_bytes"] < LARGE_BYTES * 0.7
        assert web.sent_bytes - before < LARGE_BYTES * 0.7
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "no permission (HTTP status 403)"),
        (404, "blobs/"),
        (500, "HTTP status 500"),
        ("cut", "(ClientPayloadError)"),
    ],
)
def test_a_refusal_is_one_line(
    adprior: Adprior, web: WebServer, tmp_path: Path, status: int | str, message: str
) -> None:
    web.fault = lambda path, _earlier: status if "/blobs/" in path else None
    error = adprior.error("pull", web.url, tmp_path / "target")
    assert error.startswith(f"adprior pull: {web.url}/blobs/")
    assert message in error
    assert not (tmp_path / "target").exists()


def test_nobody_listens(adprior: Adprior, tmp_path: Path) -> None:
    error = adprior.error("pull", "http://user:secret@127.0.0.1:9/models", tmp_path / "target")
    assert error.startswith("adprior pull: http://127.0.0.1:9/models/tags/latest.json: ")
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []


def test_nothing_can_be_pushed(adprior: Adprior, large: Path) -> None:
    error = adprior.error("push", large, "http://127.0.0.1:9/models")
    assert error.endswith("a push needs a directory or an object store")
