"""A day's forecasts into Redis, from the files to the switch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis import RedisError

from adprior_bulk.publish.forecast_batches import ForecastReader
from adprior_bulk.publish.publisher_lock import LostTurnError, hold_turn
from adprior_bulk.publish.version_writer import write_version
from adprior_bulk.publish.versions import Version, Versions
from adprior_client.stored.redis_errors import RedisProblemError, explain
from adprior_client.stored.redis_keys import USERS_A_BUCKET, Keys
from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publisher did.

    Attributes:
        version: What is in Redis now.
        previous: The version that was read before, None where there was none.
        was_there: Whether the same files had been published before, and nothing was written.
        is_active: Whether the version is read now.
        rows: Rows read.
        without_advertisers: Rows that hold no forecast.
        from_future: Rows that were left out, since they lie in the future by our clock.
        replaced: Rows that others of the same users replaced.
        swept: Unfinished versions of killed runs that were removed.
        bytes_a_user: Redis' own estimate of a user's memory, None where it refuses.
        seconds: From the first row to the count.
    """

    version: Version
    previous: str | None
    was_there: bool
    is_active: bool
    rows: int
    without_advertisers: int = 0
    from_future: int = 0
    replaced: int = 0
    swept: int = 0
    bytes_a_user: float | None = None
    seconds: float = 0.0


def publish(
    redis: Any,
    keys: Keys,
    address: str,
    reader: ForecastReader,
    *,
    lifetime_s: float,
    activate: bool,
    batch_rows: int,
    advance: Callable[[int], Any],
) -> Published:
    """Write a version, count it, and let it be read.

    Whatever stops it, readers go on with the version that they had. Where the very same files are
    there as a whole version already, that one gets the new lifetime and is let be read instead.

    Args:
        redis: A client.
        keys: Of the namespace.
        address: The server's name, for messages.
        reader: Of the files.
        lifetime_s: After which the version is gone.
        activate: Whether readers are to see it.
        batch_rows: Rows that are read and sent at once.
        advance: Told how many rows are done.

    Raises:
        redis.RedisError: Redis failed.
        InvalidInputError: The files hold no forecast, or a row cannot be one.
        RedisProblemError: What was counted is not what was written.
        EnvironmentProblemError: Another publisher is at work, or took over.
    """
    versions = Versions(redis, keys, address)
    with hold_turn(redis, keys.publisher, address) as holder:
        previous, swept = versions.active(), len(versions.sweep())
        now = versions.now()
        expires_at = math.ceil(now + lifetime_s)
        if (same := _find(versions, reader.fingerprint)) is not None:
            same = versions.set_end(same, expires_at)
            if activate:
                versions.activate(same.name)
            return Published(
                version=same,
                previous=previous,
                was_there=True,
                is_active=activate or previous == same.name,
                rows=reader.rows,
                swept=swept,
            )
        version = Version(
            name=_name(now, reader.fingerprint),
            fingerprint=reader.fingerprint,
            buckets=max(math.ceil(reader.rows / USERS_A_BUCKET), 1),
            expires_at=expires_at,
        )
        with _removed_on_failure(versions, version):
            began = time.monotonic()
            versions.begin(version)
            users, replaced = write_version(
                redis,
                keys,
                version,
                reader,
                holder=holder,
                address=address,
                batch_rows=batch_rows,
                advance=advance,
            )
            if not users:
                raise InvalidInputError(
                    f"{reader.files.files[0] if reader.files.files else reader.files.manifest}: "
                    f"no forecast in these files{_told(reader)}: readers keep the version that "
                    "they had"
                )
            if (found := versions.count(version)) != users:
                raise RedisProblemError(
                    f"{address}: wrote {users:,} users and counted {found:,}: was it restarted, or "
                    "does it evict keys (maxmemory-policy)? Readers keep the version that they had"
                )
            version = replace(
                version,
                users=users,
                bundle_ids=tuple(reader.bundle_ids),
                as_of_us=reader.as_of_us,
                is_complete=True,
            )
            seconds = time.monotonic() - began
            if not _complete(versions, version, holder, address, activate=activate):
                raise LostTurnError(f"{address}: another publisher has taken over; run it again")
        return Published(
            version=version,
            previous=previous,
            was_there=False,
            is_active=activate,
            rows=reader.rows,
            without_advertisers=reader.without_advertisers,
            from_future=reader.from_future,
            replaced=replaced,
            swept=swept,
            bytes_a_user=versions.bytes_a_user(version),
            seconds=seconds,
        )


def _told(reader: ForecastReader) -> str:
    if not reader.from_future:
        return ""
    return f" ({reader.from_future:,} rows lie in the future by the clock of this machine)"


def _complete(
    versions: Versions, version: Version, holder: str, address: str, *, activate: bool
) -> bool:
    try:
        return versions.complete(version, holder=holder, activate=activate)
    except RedisError as error:
        raise RedisProblemError(
            f"{explain(error, address)}; {version.name} was written, and whether it is read is not "
            "known: see --list, or run this again"
        ) from error


def _name(now: float, fingerprint: str) -> str:
    began = datetime.fromtimestamp(now, UTC)
    return f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z-{fingerprint[:6]}"


def _find(versions: Versions, fingerprint: str) -> Version | None:
    """Return a whole version of the same files that is still all there."""
    for version in reversed(versions.all()):
        is_same = version.is_complete and version.fingerprint == fingerprint
        if is_same and versions.count(version) == version.users:
            return version
    return None


@contextmanager
def _removed_on_failure(versions: Versions, version: Version) -> Iterator[None]:
    """Give memory back at once; what a dead Redis does not hear of, the next run removes."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            versions.drop_unfinished(version)
        raise
