"""Debian's Chromium, headless, and a page that notices console errors and outside requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

BINARY: Final = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    BINARY is None, reason="no chromium: apt-get install chromium (make system-packages)"
)
Scheme: TypeAlias = Literal["light", "dark"]
WIDE: Final = (1600, 900)
NARROW: Final = (360, 740)
_TIMEOUT_MS: Final = 60_000
"""Suits a busy machine, and is shorter than a test's."""
_FAILED_REQUEST: Final = "Failed to load resource"
"""How Chromium itself reports an HTTP error, whatever the page does about it."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium, and end it."""
    expect.set_options(timeout=_TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BINARY)
        try:
            yield browser
        finally:
            browser.close()


class WatchedPage:
    """A page, what it wrote to the console, and which requests left its origin.

    Args:
        page: The page.
        origin: The only origin that it may ask.

    Attributes:
        page: The page.
        errors: Console errors, warnings and uncaught exceptions.
        outside: Addresses of other origins.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.outside: list[str] = []
        self._origin = origin
        page.on("console", self._read_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._read_request)

    def _read_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _read_request(self, request: Request) -> None:
        if "{0.scheme}://{0.netloc}".format(urlsplit(request.url)) != self._origin:
            self.outside.append(request.url)

    def close(self, *, failed_requests: bool = False) -> None:
        """Close it and fail if anything was collected; ``failed_requests`` allows HTTP errors."""
        self.page.context.close()
        errors = self.errors
        if failed_requests:
            errors = [error for error in errors if not error.startswith(_FAILED_REQUEST)]
        assert not errors
        assert not self.outside


def open_page(
    browser: Browser, url: str, size: tuple[int, int] = WIDE, color_scheme: Scheme = "light"
) -> WatchedPage:
    """Open an address in a context of its own, and start to collect."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=color_scheme
    )
    context.set_default_timeout(_TIMEOUT_MS)
    parts = urlsplit(url)
    watched = WatchedPage(context.new_page(), f"{parts.scheme}://{parts.netloc}")
    watched.page.goto(url)
    return watched


def accessibility_problems(page: Page) -> list[str]:
    """Return axe's serious and critical findings, each with the first element it names."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
