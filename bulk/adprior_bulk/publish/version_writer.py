"""Writes the forecasts of one version into Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adprior_bulk.publish.forecast_batches import Batch, ForecastReader
from adprior_bulk.publish.namespace import Command, Namespace
from adprior_bulk.publish.publisher_lock import LIFETIME_S, LostLockError
from adprior_bulk.publish.versions import Version
from adprior_client.stored.redis_errors import RedisProblemError
from adprior_client.stored.redis_record import read_as_of_us


def write_version(
    namespace: Namespace,
    version: Version,
    reader: ForecastReader,
    *,
    token: bytes,
    batch_rows: int,
    advance: Callable[[int], Any],
) -> tuple[int, int]:
    """Write every user's latest forecast.

    The first pass keeps the row that is read last. If any user has several rows, a second pass
    corrects users whose last row is not their latest. Nobody reads the version meanwhile.

    Args:
        namespace: Where to write.
        version: The version to write.
        reader: Its forecasts.
        token: Our token of the publisher's lock.
        batch_rows: Rows per exchange with Redis.
        advance: Called with the number of rows done since the last call.

    Returns:
        The number of users, and of rows replaced by other rows of the same user.

    Raises:
        redis.RedisError: A command failed.
        RedisProblemError: Redis lost data that was written.
        LostLockError: Another publisher has taken over.
        InvalidInputError: A row is not a valid forecast.
    """
    writer = _VersionWriter(namespace, version, token)
    users = rows = 0
    for batch in reader.batches(batch_rows):
        users += writer.write(batch)
        rows += len(batch.fields)
        advance(batch.rows)
    if users < rows:
        for batch in reader.batches(batch_rows):
            writer.correct(batch)
    return users, rows - users


class _VersionWriter:
    def __init__(self, namespace: Namespace, version: Version, token: bytes) -> None:
        self._namespace, self._version, self._token = namespace, version, token
        self._pointer = version.pointer()

    def write(self, batch: Batch) -> int:
        """Write a batch; return the number of users that were not there yet."""
        commands = []
        for key, rows in self._buckets(batch):
            values = [part for row in rows for part in (batch.fields[row], batch.records[row])]
            commands += [("HSET", key, *values), self._expiry(key)]
        return sum(self._run(commands)[::2])

    def correct(self, batch: Batch) -> None:
        """Write the forecasts of a batch that are not older than the stored ones."""
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
        """Yield the key of each bucket that a batch touches, with its rows in order."""
        numbers = np.array([self._pointer.bucket_of(field) for field in batch.fields], dtype=int)
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if order.size else []:
            key = self._namespace.keys.bucket(self._version.name, int(numbers[rows[0]]))
            yield key, rows.tolist()

    def _expiry(self, key: str) -> Command:
        return ("EXPIREAT", key, self._version.expires_at)

    def _run(self, commands: list[Command]) -> list[Any]:
        """Run commands, and check that we still hold the lock."""
        lock, address = self._namespace.keys.publisher, self._namespace.address
        holder, _, *answers = self._namespace.run(
            [("GET", lock), ("EXPIRE", lock, LIFETIME_S), *commands]
        )
        if holder is None:
            raise RedisProblemError(
                f"{address}: it lost data that was written: was it restarted, or does it evict "
                "keys (maxmemory-policy)? Readers keep their version"
            )
        if holder != self._token:
            raise LostLockError(
                f"{address}: another publisher took over while this one was suspended"
            )
        return answers
