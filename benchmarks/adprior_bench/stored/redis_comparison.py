"""Compares publishing and lookups of stored forecasts with plain SETs and GETs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_bulk.publish.namespace import Namespace
from adprior_bulk.publish.publication import publish
from adprior_client import ParquetForecasts, RedisForecasts
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_client.stored.redis_keys import Keys
from adprior_runtime.errors import EnvironmentProblemError

_BATCH_ROWS: Final = 32768
_PLAIN_BATCH: Final = 1000
_PLAIN_USERS: Final = 1000
_SIZED_KEYS: Final = 10_000
_RECORD_BYTES: Final = 262
_WARM_UP: Final = 200
_DAY_S: Final = 86400


def measure_publishing(client: Any, name: str, path: Path, runs: int) -> dict[str, Any]:
    """Publish and write plain SETs in turn; the last published version stays in Redis."""
    rates, plain_rates = [], []
    for _ in tqdm(range(runs), unit="run", desc="publishing", leave=False, disable=None):
        _, plain_rate, plain_bytes = _measure_write(client, lambda: _write_plainly(client, path))
        plain_rates.append(plain_rate)
        users, rate, published_bytes = _measure_write(client, lambda: _publish(client, name, path))
        rates.append(rate)
    return {
        "users": users,
        "publish_users_per_s": rates,
        "plain_set_users_per_s": plain_rates,
        "ratio": (np.array(rates) / np.array(plain_rates)).tolist(),
        "redis_bytes_per_user": published_bytes,
        "plain_set_redis_bytes_per_user": plain_bytes,
    }


def _measure_write(client: Any, write: Callable[[], tuple[int, float]]) -> tuple[int, float, float]:
    """Empty Redis and write; return users, users a second, and bytes a user."""
    client.flushall()
    users, seconds = write()
    return users, users / seconds, _stored_bytes(client) / users


def _stored_bytes(client: Any) -> float:
    """Return the bytes of all keys and values, by a sample of the keys.

    The server's whole memory also has its connections' buffers, which grow and shrink at any time.
    """
    keys = list(islice(client.scan_iter(count=_PLAIN_BATCH), _SIZED_KEYS))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        sizes = pipeline.execute()
    return float(np.mean(sizes)) * int(client.dbsize())


def _publish(client: Any, name: str, path: Path) -> tuple[int, float]:
    done = publish(
        Namespace(redis=client, keys=Keys(), address=name),
        ForecastReader(list_forecast_files(path)),
        lifetime_s=_DAY_S,
        activate=True,
        batch_rows=_BATCH_ROWS,
        advance=lambda _: None,
    )
    return done.version.users, done.seconds


def _write_plainly(client: Any, path: Path) -> tuple[int, float]:
    """Set a key with a lifetime for each user; count only the seconds of sending."""
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


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A way to look a user up, and the users to look up in turn."""

    find: Callable[[Any], Any]
    users: Sequence[Any]

    def time(self, number: int) -> float:
        """Return the seconds of a lookup."""
        user = self.users[number % len(self.users)]
        began = time.perf_counter()
        found = self.find(user)
        seconds = time.perf_counter() - began
        if found is None:
            raise EnvironmentProblemError(f"published user {user} was not found")
        return seconds


def measure_lookups(
    client: Any, url: str, path: Path, *, lookups: int, threads: int
) -> list[dict[str, Any]]:
    """Return a row for each kind of lookup: one thread, then several at once."""
    users = _sample_users(path, lookups)
    known = users[:_PLAIN_USERS]
    for user in known:
        client.set(f"plain:{user}", b"x" * _RECORD_BYTES)
    with RedisForecasts(url, timeout_s=10, max_connections=threads) as redis:
        plain = _Lookup(lambda user: client.get(f"plain:{user}"), known)
        kinds = {
            "plain GET": plain,
            "RedisForecasts": _Lookup(redis.find, users),
            "ParquetForecasts": _Lookup(ParquetForecasts(path).find, users),
        }
        return [
            *_measure_in_turn(kinds, lookups),
            *(
                _measure_concurrently(name, kinds[name], lookups, threads)
                for name in ("plain GET", "RedisForecasts")
            ),
        ]


def _sample_users(path: Path, count: int) -> list[Any]:
    """Return random user ids, as the files have them."""
    ids: list[Any] = []
    for batch in ForecastReader(list_forecast_files(path)).batches(_BATCH_ROWS):
        ids += [item[1:].decode() if item[:1] == b"s" else int(item[1:]) for item in batch.fields]
    random = np.random.default_rng(1)
    return [ids[place] for place in random.integers(len(ids), size=min(count, len(ids)))]


def _measure_in_turn(kinds: Mapping[str, _Lookup], lookups: int) -> list[dict[str, Any]]:
    """Look up with one thread, one lookup of each kind after the other."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in tqdm(
        range(lookups + _WARM_UP), unit="lookup", desc="looking up", leave=False, disable=None
    ):
        for name, lookup in kinds.items():
            times[name].append(lookup.time(number))
    return [
        _row(name, 1, values[_WARM_UP:], sum(values[_WARM_UP:])) for name, values in times.items()
    ]


def _measure_concurrently(name: str, lookup: _Lookup, lookups: int, threads: int) -> dict[str, Any]:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lookup.time, range(_WARM_UP)))
        began = time.perf_counter()
        times = list(pool.map(lookup.time, range(lookups)))
        return _row(name, threads, times, time.perf_counter() - began)


def _row(name: str, threads: int, times: Sequence[float], seconds: float) -> dict[str, Any]:
    p50, p99 = (1e3 * np.quantile(times, (0.5, 0.99))).tolist()
    return {
        "source": name,
        "threads": threads,
        "lookups_per_s": len(times) / seconds,
        "p50_ms": p50,
        "p99_ms": p99,
    }
