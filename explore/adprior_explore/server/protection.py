"""Who may ask the page's server, the headers of every answer, and errors that nobody expected.

A page of another origin must not read or ask anything here, also not through a name that it points
to this machine (DNS rebinding). Without a token only the names of loopback are accepted as
``Host``. With a token any name is: another origin has no token.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adprior_explore.server.problems import Problem
from adprior_runtime.text.json_text import to_json

API: Final = "/api/"
REPORTS: Final = "/reports/"
COOKIE: Final = "adprior_reports"
"""Opens the reports, where a token is needed: a frame cannot send the token."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
REPORT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox"
)
"""A report is a file from somewhere: it may show itself, and run or load nothing."""
_log = logging.getLogger("adprior_explore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a browser must present.

    Attributes:
        token: The token of the page; None without one.
        ticket: The value of the cookie that opens reports.
    """

    token: str | None = field(default=None, repr=False)
    ticket: str = field(default_factory=secrets.token_urlsafe, repr=False)

    def cookie(self, *, secure: bool) -> str | None:
        """Return the header that sets the cookie; None without a token."""
        if self.token is None:
            return None
        attributes = f"Path={REPORTS}; HttpOnly; SameSite=Strict"
        return f"{COOKIE}={self.ticket}; {attributes}{'; Secure' if secure else ''}"

    def refuse(self, path: str, headers: Headers) -> Problem | None:
        """Return why a request is refused; None if it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and _name_of(host) not in _LOOPBACK:
            return Problem(
                status=HTTPStatus.FORBIDDEN,
                error="Host: found another name, expected localhost, 127.0.0.1 or [::1]",
                what_to_do="Open the address that adprior explore printed, or give it "
                "--page-token-file to use other names.",
            )
        if origin is not None and origin.partition("://")[2] != host:
            return Problem(
                status=HTTPStatus.FORBIDDEN,
                error="Origin: found another page's, expected this page's own",
                what_to_do="Open the address that adprior explore printed.",
            )
        if self.token is None or not self._is_closed(path, headers, self.token):
            return None
        return Problem(
            status=HTTPStatus.UNAUTHORIZED,
            error="token: none or a wrong one",
            what_to_do="Give the token that adprior explore was started with.",
        )

    def _is_closed(self, path: str, headers: Headers, token: str) -> bool:
        if path.startswith(API):
            given = headers.get("authorization", "")
            return not hmac.compare_digest(given.encode(), f"Bearer {token}".encode())
        if path.startswith(REPORTS):
            try:
                cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            except CookieError:
                return True
            given = "" if cookie is None else cookie.value
            return not hmac.compare_digest(given.encode(), self.ticket.encode())
        return False


class Protection:
    """An ASGI application that protects another one.

    Args:
        app: The application.
        access: What a browser must present.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message), scope["path"])
            await send(message)

        problem = self._access.refuse(scope["path"], Headers(scope=scope))
        try:
            app = self._app if problem is None else problem_response(problem)
            await app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001  its message may quote a user's context
            _log.error("adprior explore: %s", _describe(error))
            if not started:
                await problem_response(_BUG)(scope, receive, send_with_headers)


_BUG: Final = Problem(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    error="adprior explore failed on this request: a bug",
    what_to_do="Report the line that adprior explore printed in its terminal.",
)


def problem_response(problem: Problem) -> Response:
    """Return an answer that says what is wrong."""
    # ASCII: a file's name in the line may be no Unicode.
    body = to_json(problem.to_json())
    return Response(body, status_code=problem.status, media_type="application/json")


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _add_headers(headers: MutableHeaders, path: str) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers["cache-control"] = "no-cache" if path.startswith("/page/") else "no-store"


def _describe(error: Exception) -> str:
    """Return a line without the error's message."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"bug: {type(error).__name__} at {place.filename}:{place.lineno}"
