"""Fixtures: ``adprior publish`` with a real redis-server, and two days of forecasts."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adprior_client import RedisForecasts
from adprior_runtime.cli import main
from support.processes import COMMAND, await_true
from support.redis_server import RedisServer, many_users, running_redis, write_forecasts

USERS = 3000


class Publisher:
    """Runs the command on one server."""

    def __init__(self, server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self._capsys = server, capsys

    def __call__(self, *options: str | Path) -> Any:
        """Run a command that succeeds; return its JSON."""
        assert self._run("--json", *options) == 0
        return json.loads(self._capsys.readouterr().out)

    def text(self, *options: str | Path) -> str:
        """Run a command that succeeds; return what it prints."""
        assert self._run(*options) == 0
        return self._capsys.readouterr().out

    def error(self, *options: str | Path) -> str:
        """Run a command that fails; return its error, one line."""
        assert self._run(*options) == 2
        error = self._capsys.readouterr().err
        assert error.startswith("adprior publish: ")
        assert error.count("\n") == 1
        return error

    def start(self, forecasts: Path) -> subprocess.Popen[bytes]:
        """Start the command in a process of its own."""
        publish = ["publish", "--redis", self.server.url, "--forecasts", str(forecasts)]
        return subprocess.Popen(
            [*COMMAND, *publish, "--batch-rows", "20"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def first_advertisers(self) -> set[int | None]:
        """Return the first advertisers that a new reader finds, of a sample of users."""
        with RedisForecasts(self.server.url, timeout_s=10) as source:
            found = [source.find(f"user-{number}") for number in range(0, USERS, 97)]
            assert source.counts.failed == source.counts.corrupt == 0
        return {None if item is None else item.advertisers[0].advertiser_id for item in found}

    def await_writing(self, users: int) -> None:
        """Return when an unfinished version has this many users."""
        client = self.server.client()

        def is_reached() -> bool:
            states = [json.loads(raw) for raw in client.hgetall("adprior:versions").values()]
            return any(
                sum(client.hlen(f"adprior:{state['name']}:{n}") for n in range(state["buckets"]))
                >= users
                for state in states
                if not state["is_complete"]
            )

        await_true(is_reached, "the publisher did not begin", poll_s=0.001)

    @contextmanager
    def while_writing(self, action: Callable[[], object]) -> Iterator[None]:
        """Run an action in a thread once an unfinished version has 500 users."""

        def act() -> None:
            self.await_writing(500)
            action()

        thread = threading.Thread(target=act)
        thread.start()
        yield
        thread.join()

    def _run(self, *options: str | Path) -> int:
        return main(["publish", "--redis", self.server.url, *map(str, options)])


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def publisher(shared_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> Publisher:
    """Return a publisher to an empty server."""
    shared_server.client().flushall()
    return Publisher(shared_server, capsys)


@pytest.fixture
def yesterday(tmp_path: Path) -> Path:
    """Return a directory of one file, where every user's first advertiser is 100."""
    return write_forecasts(tmp_path / "yesterday" / "a.parquet", many_users(USERS, 100)).parent


@pytest.fixture
def today(tmp_path: Path) -> Path:
    """Return a directory of two files, where every user's first advertiser is 200."""
    rows = many_users(USERS, 200, bundle_id="bundle-2")
    for shard in range(2):
        path = tmp_path / "today" / "date=2024-05-31" / f"shard={shard:04d}" / "a.parquet"
        write_forecasts(path, rows[shard::2])
    return tmp_path / "today"
