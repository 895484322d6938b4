"""One version, from the first batch to the count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adprior_build.publish.commands import run_all
from adprior_build.publish.forecast_batches import Batch, ForecastReader
from adprior_build.publish.turn import LIFETIME_S, LostTurnError
from adprior_build.publish.versions import Version
from adprior_client.forecast_record import read_as_of_us
from adprior_client.redis_layout import Keys

__all__ = ["ROWS_AT_ONCE", "write_version"]

ROWS_AT_ONCE: Final = 32768
"""Rows of a batch: some 50 MB at 20 advertisers, and a few users for each bucket it touches."""


def write_version(
    redis: Any,
    keys: Keys,
    version: Version,
    reader: ForecastReader,
    *,
    holder: str,
    advance: Callable[[int], Any],
    rows_at_once: int = ROWS_AT_ONCE,
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
        advance: Told how many rows are done.
        rows_at_once: Rows of a batch.

    Returns:
        Users, and rows that other rows of the same users replaced.

    Raises:
        redis.RedisError: A command failed.
        LostTurnError: Another publisher has taken over.
        InvalidInputError: A row cannot be a forecast.
    """
    sink = _Sink(redis, keys, version, holder)
    users = rows = 0
    for batch in reader.batches(rows_at_once):
        users += sink.write(batch)
        rows += len(batch.fields)
        advance(batch.rows)
    if users < rows:
        for batch in reader.batches(rows_at_once):
            sink.correct(batch)
    return users, rows - users


class _Sink:
    def __init__(self, redis: Any, keys: Keys, version: Version, holder: str) -> None:
        self._redis = redis
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
        """Write those of a batch that are later than what is there."""
        buckets = list(self._buckets(batch))
        asked = [("HMGET", key, *(batch.fields[row] for row in rows)) for key, rows in buckets]
        commands = []
        for (key, rows), found in zip(buckets, self._run(asked), strict=True):
            later = [
                row
                for row, raw in zip(rows, found, strict=True)
                if raw is None or batch.as_of_us[row] > read_as_of_us(raw)
            ]
            later.sort(key=lambda row: int(batch.as_of_us[row]))
            if later:
                values = [part for row in later for part in (batch.fields[row], batch.records[row])]
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
        if holder != self._holder:
            raise LostTurnError("another publisher has taken over: this one stood still too long")
        return answers
