"""``adprior publish`` or Redis is killed, loses data or loses an answer while publishing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from adprior_bulk.publish.versions import Versions
from support.publisher import USERS, Publisher
from support.redis_server import needs_redis, running_redis

pytestmark = needs_redis


def test_a_killed_publication_finishes_when_run_again(
    publisher: Publisher, yesterday: Path, today: Path
) -> None:
    publisher("--forecasts", yesterday)
    for users in (1, 700, 2500):
        process = publisher.start(today)
        publisher.await_writing(users)
        process.kill()
        process.wait()
        assert publisher.first_advertisers() == {100}
    done = publisher("--forecasts", today)
    assert (done["users"], done["unfinished_versions_removed"]) == (USERS, 1)
    assert publisher.first_advertisers() == {200}
    # Two buckets of each version, the pointer and the entries.
    assert publisher.server.client().dbsize() == 2 + 2 + 2


def test_sigterm_leaves_nothing(publisher: Publisher, today: Path) -> None:
    process = publisher.start(today)
    publisher.await_writing(1)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert publisher.server.client().dbsize() == 0


@pytest.mark.parametrize("saved", [True, False], ids=["with an append-only file", "unsaved"])
def test_redis_killed_while_publishing(
    tmp_path: Path,
    yesterday: Path,
    today: Path,
    saved: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always") if saved else ()
    (tmp_path / "data").mkdir()
    with running_redis(tmp_path / "data", *options) as server:
        publisher = Publisher(server, capsys)
        publisher("--forecasts", yesterday)
        with publisher.while_writing(server.kill):
            error = publisher.error("--forecasts", today, "--batch-rows", "20")
        assert "no connection: " in error
        server.start()
        server.client().delete("adprior:publisher")  # its holder, this process, is alive
        assert publisher.first_advertisers() == ({100} if saved else {None})
        publisher("--forecasts", today)
        assert publisher.first_advertisers() == {200}


@pytest.mark.parametrize("lost", ["adprior:*:0", "*"])
def test_data_lost_while_publishing_is_found(publisher: Publisher, today: Path, lost: str) -> None:
    client = publisher.server.client()
    with publisher.while_writing(lambda: client.delete(*client.keys(lost))):
        error = publisher.error("--forecasts", today, "--batch-rows", "20")
    assert "evict" in error
    assert publisher.first_advertisers() == {None}
    assert client.dbsize() <= 1


def test_a_lost_answer_does_not_undo_the_switch(
    publisher: Publisher, yesterday: Path, today: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher("--forecasts", yesterday)
    complete = Versions.complete

    def lose(*args: Any, **options: Any) -> bool:
        complete(*args, **options)
        raise redis.ConnectionError("Connection reset by peer")

    monkeypatch.setattr(Versions, "complete", lose)
    error = publisher.error("--forecasts", today)
    assert "it is not known whether readers use it: see --list" in error
    assert publisher.first_advertisers() == {200}
