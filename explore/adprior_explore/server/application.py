"""The routes of the page's server, as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Any, Final, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from adprior_client import ClientConfig, ForecastSource
from adprior_client.cli.json_document import JsonValue
from adprior_explore.agreement import measure_agreement
from adprior_explore.comparison import compare
from adprior_explore.examples import Example
from adprior_explore.forecast import show_forecast
from adprior_explore.ranking import find_stored, show_ranking
from adprior_explore.reports import Report
from adprior_explore.server.connection import BrowserGoneError, run_while_connected
from adprior_explore.server.documents import (
    MOST_BYTES,
    MOST_BYTES_OF_USERS,
    MOST_USERS,
    count_of,
    read_document,
    subjects_of,
)
from adprior_explore.server.problems import Problem, RefusedError, problem_of
from adprior_explore.server.protection import (
    REPORT_POLICY,
    Access,
    Protection,
    problem_response,
)
from adprior_explore.side import Side
from adprior_explore.subject import Subject
from adprior_explore.why import explain
from adprior_runtime.contract import MAX_CANDIDATES, MAX_CONTEXT_BYTES, MAX_TOP_K
from adprior_runtime.errors import AdpriorError
from adprior_runtime.text.json_text import to_json

_Answer: TypeAlias = Coroutine[Any, Any, Mapping[str, Any]]
_Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
_LIMITS: Final = {
    "context_bytes": MAX_CONTEXT_BYTES,
    "k": MAX_TOP_K,
    "candidates": MAX_CANDIDATES,
    "users": MOST_USERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What the page shows.

    Attributes:
        configs: How to reach each server, by side: ``a``, and maybe ``b``.
        examples: Users to begin with, by name.
        reports: Reports, by name.
        store: Stored forecasts; None without them.
        access: What a browser must present.
        secure: Whether the page is served with TLS.
    """

    configs: Mapping[str, ClientConfig]
    examples: Mapping[str, Example]
    reports: Mapping[str, Report]
    store: ForecastSource | None = None
    access: Access
    secure: bool = False


def make_application(exploration: Exploration) -> ASGIApp:
    """Return the application; its servers are watched while it runs."""
    views = _Views(exploration)
    posts = (
        ("forecast", views.forecast, MOST_BYTES),
        ("why", views.why, MOST_BYTES),
        ("rank", views.rank, MOST_BYTES),
        ("compare", views.compare, MOST_BYTES),
        ("agreement", views.agreement, MOST_BYTES_OF_USERS),
    )
    routes = [
        Route("/", _show_page),
        Mount("/page", StaticFiles(packages=[("adprior_explore", "page")])),
        Route("/api/state", views.show_state),
        Route("/api/examples/{name}", views.show_example),
        Route("/reports/{name}", views.show_report),
        *(
            Route(f"/api/{name}", _answer_post(view, most), methods=["POST"])
            for name, view, most in posts
        ),
    ]
    app = Starlette(
        routes=routes,
        lifespan=views.run,
        exception_handlers={
            AdpriorError: _refuse,
            HTTPException: _refuse_route,
            BrowserGoneError: _end_quietly,
            ClientDisconnect: _end_quietly,
        },
    )
    return Protection(app, exploration.access)


class _Views:
    """The answers of the page's server."""

    def __init__(self, exploration: Exploration) -> None:
        self._exploration = exploration
        self._sides: dict[str, Side] = {}

    @asynccontextmanager
    async def run(self, _app: Starlette) -> AsyncIterator[None]:
        """Open the clients in the server's event loop, and close them at its end."""
        self._sides = {name: Side(name, it) for name, it in self._exploration.configs.items()}
        for side in self._sides.values():
            side.start_watching()
        try:
            yield
        finally:
            await asyncio.gather(*(side.close() for side in self._sides.values()))

    async def show_state(self, _request: Request) -> Response:
        exploration = self._exploration
        response = _json_response(
            {
                "sides": [side.to_json() for side in self._sides.values()],
                "examples": [example.to_json() for example in exploration.examples.values()],
                "reports": [report.to_json() for report in exploration.reports.values()],
                "stored": exploration.store is not None,
                "limits": _LIMITS,
            }
        )
        if cookie := exploration.access.cookie(secure=exploration.secure):
            response.headers["set-cookie"] = cookie
        return response

    async def show_example(self, request: Request) -> Response:
        example = self._exploration.examples.get(request.path_params["name"])
        if example is None:
            raise _unknown("example")
        return _json_response(example.subject.document)

    async def show_report(self, request: Request) -> Response:
        report = self._exploration.reports.get(request.path_params["name"])
        if report is None:
            raise _unknown("report")
        page = await asyncio.to_thread(report.read)
        policy = {"content-security-policy": REPORT_POLICY}
        return Response(page, media_type="text/html", headers=policy)

    async def forecast(self, document: JsonValue) -> Mapping[str, Any]:
        side, subject = self._side_of(document), Subject.of(document["user"])
        k, interest_k = count_of(document, "k"), count_of(document, "interest_k")
        return await show_forecast(side, subject, k, interest_k)

    async def why(self, document: JsonValue) -> Mapping[str, Any]:
        side, subject = self._side_of(document), Subject.of(document["user"])
        return await explain(side, subject, count_of(document, "k"))

    async def rank(self, document: JsonValue) -> Mapping[str, Any]:
        side, subject = self._side_of(document), Subject.of(document["user"])
        stored = await find_stored(document, self._exploration.store)
        return await show_ranking(side, subject, document["candidates"], stored)

    async def compare(self, document: JsonValue) -> Mapping[str, Any]:
        a, b = self._both()
        return await compare(a, b, Subject.of(document["user"]), count_of(document, "k"))

    async def agreement(self, document: JsonValue) -> Mapping[str, Any]:
        a, b = self._both()
        users = document.get("users")
        if users is None:
            labelled = [(it.title, it.subject) for it in self._exploration.examples.values()]
        else:
            # Seconds for many long histories: other requests are answered meanwhile.
            subjects = await asyncio.to_thread(subjects_of, users)
            labelled = [(f"user {n}", it) for n, it in enumerate(subjects, start=1)]
        return await measure_agreement(a, b, labelled, count_of(document, "k"))

    def _side_of(self, document: JsonValue) -> Side:
        value = document["side"]
        if (side := self._sides.get(value.of_type(str))) is None:
            raise value.wrong(f"one of {', '.join(self._sides)}")
        return side

    def _both(self) -> tuple[Side, Side]:
        if len(self._sides) < 2:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                "found one server, expected two",
                "Start adprior explore with --bundle-b HOST:PORT too.",
            )
        return self._sides["a"], self._sides["b"]


def _answer_post(view: Callable[[JsonValue], _Answer], most_bytes: int) -> _Handler:
    async def answer(request: Request) -> Response:
        document = await read_document(request, most_bytes)
        return _json_response(await run_while_connected(request.receive, view(document)))

    return answer


async def _show_page(_request: Request) -> Response:
    page = resources.files("adprior_explore").joinpath("page", "index.html").read_bytes()
    return Response(page, media_type="text/html", headers={"cache-control": "no-cache"})


async def _refuse(_request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error))


async def _refuse_route(_request: Request, error: Exception) -> Response:
    """Answer an unknown path or a wrong method as every other error."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    status = HTTPStatus(status)
    reason = Problem(status=status, error=status.phrase, what_to_do="Open / for the page.")
    return problem_response(reason)


async def _end_quietly(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def _unknown(what: str) -> RefusedError:
    return RefusedError(HTTPStatus.NOT_FOUND, f"{what}: no such name", "Load the page again.")


def _json_response(document: Mapping[str, Any]) -> Response:
    return Response(to_json(document, ensure_ascii=False), media_type="application/json")
