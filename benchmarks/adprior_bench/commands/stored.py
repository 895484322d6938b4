"""``adprior bench stored``: compare stored forecasts in Redis and Parquet with plain Redis."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis

from adprior_bench.options import add_counts
from adprior_bench.stored.made_up_forecasts import write_users
from adprior_bench.stored.redis_comparison import measure_lookups, measure_publishing
from adprior_client.stored.redis_connection import RedisAddress
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior bench stored --forecasts FORECASTS
  adprior bench stored --users 200000 --advertisers 20"""

_REDIS_START_S: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--forecasts",
        type=Path,
        metavar="PATH",
        help="output of adprior bulk (default: made-up users)",
    )
    add_counts(
        parser,
        ("--users", 100_000, "made-up users"),
        ("--advertisers", 20, "advertisers of each made-up user"),
        ("--lookups", 20_000, "lookups of each kind"),
        ("--threads", 8, "concurrent threads of the last rows"),
        ("--runs", 3, "runs of publishing, each compared with a run of plain SETs"),
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    with (
        tempfile.TemporaryDirectory(prefix="adprior-bench-") as scratch,
        _start_redis(scratch) as url,
    ):
        path = args.forecasts
        if path is None:
            path = Path(scratch) / "forecasts"
            write_users(path, users=args.users, advertisers=args.advertisers)
        address = RedisAddress(url)
        client = address.connect(timeout_s=60, max_connections=args.threads)
        report = measure_publishing(client, address.name, path, args.runs)
        report["lookups"] = measure_lookups(
            client, url, path, lookups=args.lookups, threads=args.threads
        )
    print(to_json(report, indent=2) if args.json else _tables(report))
    return 0


@contextmanager
def _start_redis(directory: str) -> Iterator[str]:
    """Start a redis-server on loopback that saves nothing; yield its URL; stop it at the end."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise EnvironmentProblemError("no redis-server on PATH: apt-get install redis-server")
    (port,) = free_ports(1)
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:  # noqa: S603
        try:
            _await_answer(redis.Redis(port=port))
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _await_answer(client: redis.Redis) -> None:
    give_up = time.monotonic() + _REDIS_START_S
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > give_up:
                raise EnvironmentProblemError("redis-server did not start") from None
            time.sleep(0.02)
        else:
            return


def _tables(report: dict[str, Any]) -> str:
    rows = [
        ("users", f"{report['users']:,}"),
        ("adprior publish, users/s", _spread(report["publish_users_per_s"])),
        ("plain pipelined SET, users/s", _spread(report["plain_set_users_per_s"])),
        ("ratio", _spread(report["ratio"], digits=2)),
        ("Redis memory, bytes a user", f"{report['redis_bytes_per_user']:.0f}"),
        ("with plain SET", f"{report['plain_set_redis_bytes_per_user']:.0f}"),
    ]
    publishing = format_table((("publishing", "left"), ("", "left")), rows)
    columns: list[Column] = [("lookups", "left")]
    columns += [(name, "right") for name in ("threads", "per s", "p50 ms", "p99 ms")]
    cells = [
        (
            row["source"],
            str(row["threads"]),
            f"{row['lookups_per_s']:,.0f}",
            f"{row['p50_ms']:.3f}",
            f"{row['p99_ms']:.3f}",
        )
        for row in report["lookups"]
    ]
    return f"{publishing}\n\n{format_table(columns, cells)}"


def _spread(values: Sequence[float], *, digits: int = 0) -> str:
    """Return the median, with the lowest and the highest value."""
    low, median, high = np.quantile(values, (0, 0.5, 1))
    return f"{median:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
