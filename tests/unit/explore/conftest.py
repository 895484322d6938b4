"""The page's server in this process, on Tritons that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from starlette.testclient import TestClient

from adprior_explore.examples import read_examples
from adprior_explore.server.application import Exploration, make_application
from adprior_explore.server.protection import Access
from support.fake_triton import FakeTriton
from support.paths import DEMO
from support.processes import await_true

OpenPage: TypeAlias = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def open_page() -> OpenPage:
    """Return a function that opens the page of some Tritons, and waits until they are ready."""

    @contextmanager
    def open_(*tritons: FakeTriton, wait: bool = True, **parts: Any) -> Iterator[TestClient]:
        usual: dict[str, Any] = {"examples": read_examples(EXAMPLES), "reports": {}}
        usual["access"] = Access()
        exploration = Exploration(
            configs={side: it.config() for side, it in zip("ab", tritons, strict=False)},
            **(usual | parts),
        )
        with TestClient(make_application(exploration), base_url="http://localhost") as client:
            if wait:
                await_true(lambda: all(side["ready"] for side in sides_of(client)))
            for triton in tritons:
                triton.calls.clear()
            yield client

    return open_


@pytest.fixture
def page(triton: FakeTriton, open_page: OpenPage) -> Iterator[TestClient]:
    with open_page(triton) as client:
        yield client


EXAMPLES: list[Path] = [DEMO / "users" / f"{name}.json" for name in ("dog_owner", "no_history")]


def sides_of(client: TestClient) -> list[dict[str, Any]]:
    sides: list[dict[str, Any]] = client.get("/api/state").json()["sides"]
    return sides
