"""One version, from the first batch to the count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adprior_bulk.publish.forecast_batches import Batch, ForecastReader
from adprior_bulk.publish.pipelining import run_all
from adprior_bulk.publish.publisher_lock import LIFETIME_S, LostTurnError
from adprior_bulk.publish.versions import Version
from adprior_client.stored.redis_errors import RedisProblemError
from adprior_client.stored.redis_keys import Keys
from adprior_client.stored.redis_record import read_as_of_us


def write_version(
    redis: Any,
    keys: Keys,
    version: Version,
    reader: ForecastReader,
    *,
    holder: str,
    address: str,
    batch_rows: int,
    advance: Callable[[int], Any],
) -> tuple[int, int]:
    """Write every user's latest forecast.

    The last row of a user that is read overwrites the others. Where that happened at all, a second
    pass puts right what a later row overwrote with an earlier forecast; nobody reads it meanwhile.

    Args:
        redis: A client.
        keys: Of the namespace.
        version: Where to.
        reader: Of what.
        holder: The token of our turn.
        address: The server's name, for messages.
        batch_rows: Rows that are read and sent at once.
        advance: Told how many rows are done.

    Returns:
        Users, and rows that other rows of the same users replaced.

    Raises:
        redis.RedisError: A command failed.
        RedisProblemError: Redis lost what was written.
        LostTurnError: Another publisher has taken over.
        InvalidInputError: A row cannot be a forecast.
    """
    sink = _Sink(redis, keys, version, holder, address)
    users = rows = 0
    for batch in reader.batches(batch_rows):
        users += sink.write(batch)
        rows += len(batch.fields)
        advance(batch.rows)
    if users < rows:
        for batch in reader.batches(batch_rows):
            sink.correct(batch)
    return users, rows - users


class _Sink:
    def __init__(self, redis: Any, keys: Keys, version: Version, holder: str, address: str) -> None:
        self._redis = redis
        self._address = address
        self._keys = keys
        self._version = version
        self._holder = holder.encode()

    def write(self, batch: Batch) -> int:
        """Write a batch; returns how many of its users were not there yet."""
        commands = []
        for key, rows in self._buckets(batch):
            values = [part for row in rows for part in (batch.fields[row], batch.records[row])]
            commands += [("HSET", key, *values), self._expiry(key)]
        return sum(self._run(commands)[::2])

    def correct(self, batch: Batch) -> None:
        """Write those of a batch that are not earlier than what is there."""
        times = batch.as_of_us
        buckets = []
        for key, rows in self._buckets(batch):
            latest: dict[bytes, int] = {}
            for row in rows:
                best = latest.setdefault(batch.fields[row], row)
                latest[batch.fields[row]] = row if times[row] >= times[best] else best
            buckets.append((key, latest))
        answers = self._run([("HMGET", key, *latest) for key, latest in buckets])
        commands = []
        for (key, latest), found in zip(buckets, answers, strict=True):
            values: list[bytes] = []
            for (field, row), raw in zip(latest.items(), found, strict=True):
                record = batch.records[row]
                if raw is None or (raw != record and times[row] >= read_as_of_us(raw)):
                    values += [field, record]
            if values:
                commands += [("HSET", key, *values), self._expiry(key)]
        self._run(commands)

    def _buckets(self, batch: Batch) -> Iterator[tuple[str, list[int]]]:
        """Yield each bucket that a batch touches, with its rows in their order."""
        numbers: NDArray[np.int64] = batch.checksums.astype(np.int64) % self._version.buckets
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if order.size else []:
            yield self._keys.bucket(self._version.name, int(numbers[rows[0]])), rows.tolist()

    def _expiry(self, key: str) -> tuple[Any, ...]:
        return ("EXPIREAT", key, self._version.expires_at)

    def _run(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Run commands while it is our turn."""
        turn = self._keys.publisher
        holder, _, *answers = run_all(
            self._redis, [("GET", turn), ("EXPIRE", turn, LIFETIME_S), *commands]
        )
        if holder is None:
            raise RedisProblemError(
                f"{self._address}: it forgot what was written: was it restarted, or does it evict "
                "keys (maxmemory-policy)? Readers keep the version that they had"
            )
        if holder != self._holder:
            raise LostTurnError(
                f"{self._address}: another publisher took over while this one stood still"
            )
        return answers
