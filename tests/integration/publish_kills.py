"""Kills (-9) ``adprior publish`` and Redis in turn, at random moments while it writes.

``PYTHONPATH=tests python -m integration.publish_kills --kills 20 --scratch DIRECTORY``; it needs a
redis-server, which keeps an append-only file.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any, Final, TypeAlias

from support.processes import COMMAND
from support.redis_server import RedisServer, many_users, running_redis, write_forecasts

USERS: Final = 5000
COMMAND_LINE: Final = [*COMMAND, "publish", "--batch-rows", "100"]

Records: TypeAlias = dict[bytes, bytes]


def main() -> None:
    """Kill and repeat; fail if readers see a mixture, or an incomplete version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scratch", type=Path, required=True)
    args = parser.parse_args()
    moments = random.Random(5)
    yesterday, today = args.scratch / "yesterday", args.scratch / "today"
    write_forecasts(yesterday / "a.parquet", many_users(USERS, 100))
    rows = many_users(USERS, 200, bundle_id="other")
    for part in range(4):
        write_forecasts(today / f"{part}.parquet", rows[part::4])
    (args.scratch / "redis").mkdir()
    with running_redis(
        args.scratch / "redis", "--appendonly", "yes", "--appendfsync", "everysec"
    ) as server:
        before, after, writing_s = _undisturbed(server, yesterday, today)
        seen = {"yesterday's": 0, "today's": 0}
        for kill in range(args.kills):
            server.client().flushall()
            _publish(server, yesterday)
            publisher = _start(server, today)
            _await_writing(server, publisher)
            time.sleep(moments.random() * writing_s)
            if kill % 2:
                publisher.kill()
            else:
                server.kill()
                server.start()
            publisher.wait()
            found = _read(server)
            assert found in (before, after), f"kill {kill}: readers see a mixture of two days"
            seen["today's" if found == after else "yesterday's"] += 1
            _publish(server, today)
            assert _read(server) == after, f"kill {kill}: not what an undisturbed run writes"
    print(f"{USERS:,} users after {args.kills} kills: the same as undisturbed; seen before: {seen}")


def _undisturbed(
    server: RedisServer, yesterday: Path, today: Path
) -> tuple[Records, Records, float]:
    """Return what readers see before and after, and the duration of writing."""
    _publish(server, yesterday)
    before = _read(server)
    publisher = _start(server, today)
    _await_writing(server, publisher)
    began = time.monotonic()
    assert publisher.wait() == 0
    return before, _read(server), time.monotonic() - began


def _start(server: RedisServer, forecasts: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND_LINE, "--redis", server.url, "--forecasts", str(forecasts)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _publish(server: RedisServer, forecasts: Path) -> None:
    assert _start(server, forecasts).wait() == 0


def _await_writing(server: RedisServer, publisher: subprocess.Popen[bytes]) -> None:
    client = server.client()
    while publisher.poll() is None:
        entries = client.hgetall("adprior:versions").values()
        if any(not json.loads(entry)["is_complete"] for entry in entries):
            return
        time.sleep(0.001)


def _read(server: RedisServer) -> Records:
    """Return every record of the version that readers use."""
    client: Any = server.client()
    pointer = json.loads(client.get("adprior:current"))
    buckets = [f"adprior:{pointer['version']}:{number}" for number in range(pointer["buckets"])]
    return {user: record for key in buckets for user, record in client.hgetall(key).items()}


if __name__ == "__main__":
    main()
