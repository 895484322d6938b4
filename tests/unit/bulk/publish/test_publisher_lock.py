from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from adprior_bulk.publish import publisher_lock
from support.publisher import Publisher
from support.redis_server import needs_redis

pytestmark = needs_redis


def _lock(publisher: Publisher, *, pid: int, px: int | None = None, **changes: str) -> None:
    holder = {"machine": publisher_lock._machine(), "pid": pid, "id": "other"} | changes
    publisher.server.client().set("adprior:publisher", json.dumps(holder), px=px)


def test_the_lock_of_a_living_process_is_respected(
    publisher: Publisher, today: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_lock, "_PATIENCE_S", 0.3)
    _lock(publisher, pid=os.getpid())
    assert "another publisher is running" in publisher.error("--forecasts", today)
    publisher("--list")  # needs no lock


def test_the_lock_of_a_dead_process_is_taken_over(publisher: Publisher, today: Path) -> None:
    """On this machine it is taken over at once; on another one, when it expires."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    _lock(publisher, pid=gone.pid)
    publisher("--forecasts", today)
    _lock(publisher, pid=gone.pid, machine="far", px=600)
    publisher("--forecasts", today)
    assert not publisher.server.client().exists("adprior:publisher")


def test_a_publisher_that_lost_its_lock_stops(publisher: Publisher, today: Path) -> None:
    client = publisher.server.client()
    with publisher.while_writing(lambda: client.set("adprior:publisher", "another's")):
        error = publisher.error("--forecasts", today, "--batch-rows", "20")
    assert "another publisher took over while this one was suspended" in error
    assert client.get("adprior:publisher") == b"another's"
    assert publisher.first_advertisers() == {None}
