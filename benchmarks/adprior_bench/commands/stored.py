"""``adprior bench stored``: publishing and looking up stored forecasts, beside plain Redis."""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis
from tqdm import tqdm

from adprior_bench.stored.made_up_forecasts import write_users
from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_bulk.publish.namespace import Namespace
from adprior_bulk.publish.publishing import publish
from adprior_client import ParquetForecasts, RedisForecasts
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_client.stored.redis_connection import RedisAddress
from adprior_client.stored.redis_keys import Keys
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench stored --forecasts FORECASTS
  adprior bench stored --users 200000 --advertisers 20"""

_BATCH_ROWS: Final = 32768
_PLAIN_BATCH: Final = 1000
_WARM_UP: Final = 200
_DAY_S: Final = 86400
_Lookup = Callable[[Any], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--forecasts", type=Path, metavar="PATH", help="as of adprior publish")
    for option, default, told in (
        ("--users", 100_000, "users to make up where no forecasts are given"),
        ("--advertisers", 20, "advertisers of each of those"),
        ("--lookups", 20_000, "lookups of each kind"),
        ("--threads", 8, "that look up at once, in the last rows"),
        ("--runs", 3, "of publishing, each beside one of plain SETs"),
    ):
        parser.add_argument(
            option, type=positive_integer, default=default, metavar="N", help=f"{told} ({default})"
        )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as scratch, _redis(scratch) as url:
        path = args.forecasts
        if path is None:
            path = Path(scratch) / "forecasts"
            write_users(path, users=args.users, advertisers=args.advertisers)
        address = RedisAddress(url)
        client = address.connect(timeout_s=60, max_connections=args.threads)
        report = _measure_publishing(client, address.name, path, args.runs)
        report["lookups"] = _measure_lookups(client, url, path, args)
    if args.json:
        print(to_json(report, indent=2))
    else:
        _print(report)
    return 0


def _measure_publishing(client: Any, name: str, path: Path, runs: int) -> dict[str, Any]:
    """Publish and write plain SETs of the same records in turn; the last version stays."""
    rates: list[float] = []
    plain: list[float] = []
    memory: dict[str, float] = {}
    for _ in tqdm(range(runs), unit="run", desc="publishing", leave=False, disable=None):
        client.flushall()
        before = client.info("memory")["used_memory"]
        users, seconds = _write_plainly(client, path)
        plain.append(users / seconds)
        memory["plain"] = (client.info("memory")["used_memory"] - before) / users
        client.flushall()
        before = client.info("memory")["used_memory"]
        reader = ForecastReader(list_forecast_files(path))
        done = publish(
            Namespace(redis=client, keys=Keys(), address=name),
            reader,
            lifetime_s=_DAY_S,
            activate=True,
            batch_rows=_BATCH_ROWS,
            advance=lambda _: None,
        )
        rates.append(done.version.users / done.seconds)
        memory["ours"] = (client.info("memory")["used_memory"] - before) / done.version.users
    ratios = (np.array(rates) / np.array(plain)).tolist()
    return {
        "users": done.version.users,
        "publish_users_per_s": rates,
        "plain_set_users_per_s": plain,
        "ratio": ratios,
        "redis_bytes_per_user": memory["ours"],
        "plain_set_redis_bytes_per_user": memory["plain"],
    }


def _write_plainly(client: Any, path: Path) -> tuple[int, float]:
    """Set a key with a lifetime for each user, the records made beforehand; time the sending."""
    users, seconds = 0, 0.0
    for batch in ForecastReader(list_forecast_files(path)).batches(_BATCH_ROWS):
        pairs = list(zip((b"adprior:" + item for item in batch.fields), batch.records, strict=True))
        began = time.perf_counter()
        for first in range(0, len(pairs), _PLAIN_BATCH):
            with client.pipeline(transaction=False) as pipeline:
                for key, record in pairs[first : first + _PLAIN_BATCH]:
                    pipeline.set(key, record, ex=_DAY_S)
                pipeline.execute()
        seconds += time.perf_counter() - began
        users += len(pairs)
    return users, seconds


def _measure_lookups(
    client: Any, url: str, path: Path, args: argparse.Namespace
) -> list[dict[str, Any]]:
    parquet = ParquetForecasts(path)
    users = _some_users(path, args.lookups)
    for user in users[:1000]:
        client.set(f"plain:{user}", b"x" * 262)
    known = users[:1000]
    with RedisForecasts(url, timeout_s=10, max_connections=args.threads) as source:
        kinds: dict[str, tuple[_Lookup, list[Any]]] = {
            "plain GET": (lambda user: client.get(f"plain:{user}"), known),
            "RedisForecasts": (source.find, users),
            "ParquetForecasts": (parquet.find, users),
        }
        return [
            *_alone(kinds, args.lookups),
            *(_together(name, *kinds[name], args) for name in ("plain GET", "RedisForecasts")),
        ]


def _some_users(path: Path, count: int) -> list[Any]:
    """Return ids of users here and there, as the files have them."""
    ids: list[Any] = []
    for batch in ForecastReader(list_forecast_files(path)).batches(_BATCH_ROWS):
        ids += [item[1:].decode() if item[:1] == b"s" else int(item[1:]) for item in batch.fields]
    random = np.random.default_rng(1)
    return [ids[place] for place in random.integers(len(ids), size=min(count, len(ids)))]


def _alone(kinds: dict[str, tuple[_Lookup, list[Any]]], lookups: int) -> list[dict[str, Any]]:
    """One thread, the kinds in turn, call by call."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in tqdm(
        range(lookups + _WARM_UP), unit="lookup", desc="looking up", leave=False, disable=None
    ):
        for name, (look_up, users) in kinds.items():
            began = time.perf_counter()
            found = look_up(users[number % len(users)])
            times[name].append(time.perf_counter() - began)
            if found is None:
                raise EnvironmentProblemError(f"{name}: a user who was published was not found")
    return [
        _row(name, 1, values[_WARM_UP:], sum(values[_WARM_UP:])) for name, values in times.items()
    ]


def _together(
    name: str, look_up: _Lookup, users: list[Any], args: argparse.Namespace
) -> dict[str, Any]:
    def timed(number: int) -> float:
        began = time.perf_counter()
        look_up(users[number % len(users)])
        return time.perf_counter() - began

    with ThreadPoolExecutor(args.threads) as threads:
        list(threads.map(timed, range(_WARM_UP)))
        began = time.perf_counter()
        times = list(threads.map(timed, range(args.lookups)))
        return _row(name, args.threads, times, time.perf_counter() - began)


def _row(name: str, threads: int, times: list[float], seconds: float) -> dict[str, Any]:
    p50, p99 = (1e3 * np.quantile(times, (0.5, 0.99))).tolist()
    return {
        "source": name,
        "threads": threads,
        "lookups_per_s": len(times) / seconds,
        "p50_ms": p50,
        "p99_ms": p99,
    }


def _print(report: dict[str, Any]) -> None:
    def spread(name: str, digits: int = 0) -> str:
        low, middle, high = np.quantile(report[name], (0, 0.5, 1))
        return f"{middle:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"

    rows = [
        ("users", f"{report['users']:,}"),
        ("adprior publish, users/s", spread("publish_users_per_s")),
        ("plain pipelined SET, users/s", spread("plain_set_users_per_s")),
        ("ratio", spread("ratio", 2)),
        ("Redis memory, bytes a user", f"{report['redis_bytes_per_user']:.0f}"),
        ("with plain SET", f"{report['plain_set_redis_bytes_per_user']:.0f}"),
    ]
    print(format_table((("publishing", "left"), ("", "left")), rows), end="\n\n")
    columns: list[Column] = [(name, "right") for name in ("threads", "per s", "p50 ms", "p99 ms")]
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
    print(format_table([("lookups", "left"), *columns], cells))


@contextmanager
def _redis(directory: str) -> Iterator[str]:
    """Run a redis-server on a free port of loopback that saves nothing."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise EnvironmentProblemError("no redis-server on PATH: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:  # noqa: S603
        try:
            client = redis.Redis(port=port)
            give_up = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if time.monotonic() > give_up:
                        raise EnvironmentProblemError("redis-server did not start") from None
                    time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
