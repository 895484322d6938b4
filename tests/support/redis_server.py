"""A real redis-server on loopback, and forecasts for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from support.processes import await_true

BINARY = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    BINARY is None, reason="no redis-server: apt-get install redis-server (make system-packages)"
)
NOW = datetime.now(UTC).replace(microsecond=0)
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("as_of", pa.timestamp("us", "UTC")),
        ("advertiser_ids", pa.list_(pa.int64())),
        ("log_probs", pa.list_(pa.float32())),
        ("exact", pa.bool_()),
        ("missing_mass", pa.float32()),
        ("bundle_id", pa.string()),
        ("shard", pa.int32()),  # a column that no reader needs
    ]
)


class RedisServer:
    """A redis-server with its own port and directory; it saves nothing by default."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None
        self.secret: str | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        assert BINARY is not None
        command = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.directory), "--daemonize", "no", *self.options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._await()
        return self

    def _await(self) -> None:
        await_true(self._answers, "redis-server did not start", timeout_s=20)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(b"PING\r\n")
                return not link.recv(64).startswith(b"-LOADING")
        except ConnectionResetError:  # it runs, with TLS
            return True
        except OSError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.secret)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self.kill()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(directory, *options).start()
    try:
        yield server
    finally:
        server.stop()


def row(user_id: Any, first_advertiser: int = 7, **values: Any) -> dict[str, Any]:
    """Return a user's forecast, as ``adprior bulk`` writes it."""
    known = {
        "user_id": user_id,
        "as_of": NOW - timedelta(hours=1),
        "advertiser_ids": [first_advertiser, 8, 9],
        "log_probs": [-0.5, -1.5, -2.5],
        "exact": True,
        "missing_mass": 0.25,
        "bundle_id": "bundle-1",
        "shard": 0,
    }
    return known | values


def write_forecasts(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    return path


def many_users(count: int, first_advertiser: int = 7, **values: Any) -> list[dict[str, Any]]:
    return [row(f"user-{number}", first_advertiser, **values) for number in range(count)]
