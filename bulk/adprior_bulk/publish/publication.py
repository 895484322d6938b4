"""Publishes forecast files in Redis as a new version."""

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
from adprior_bulk.publish.namespace import Namespace
from adprior_bulk.publish.publisher_lock import LostLockError, hold_lock
from adprior_bulk.publish.version_writer import write_version
from adprior_bulk.publish.versions import Version, Versions
from adprior_client.stored.redis_errors import RedisProblemError, explain
from adprior_client.stored.redis_keys import USERS_PER_BUCKET
from adprior_runtime.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The result of a publication.

    Attributes:
        version: The version in Redis.
        previous: The version that readers used before, None if there was none.
        was_there: Whether a complete version of the same files existed, so nothing was written.
        is_active: Whether readers use the version now.
        rows: Rows read.
        without_advertisers: Rows without a forecast.
        from_future: Rows left out because they lie in the future.
        replaced: Rows replaced by other rows of the same user.
        swept: Unfinished versions of killed runs that were removed.
        bytes_per_user: Redis' estimate of the memory per user, None if it refuses.
        seconds: Time from the first row to the final count.
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
    bytes_per_user: float | None = None
    seconds: float = 0.0

    @property
    def users_per_s(self) -> float | None:
        """Users written per second, None if nothing was written."""
        return self.version.users / self.seconds if self.seconds else None


def publish(
    namespace: Namespace,
    reader: ForecastReader,
    *,
    lifetime_s: float,
    activate: bool,
    batch_rows: int,
    advance: Callable[[int], Any],
) -> Publication:
    """Write a version, count it, and let readers use it.

    If it fails at any point, readers keep their version. If a complete version of the same files
    exists, nothing is written: that version gets the new lifetime, and readers use it.

    Args:
        namespace: Where to publish.
        reader: The forecasts.
        lifetime_s: The version expires after this time.
        activate: Whether readers use it at once.
        batch_rows: Rows per exchange with Redis.
        advance: Called with the number of rows done since the last call.

    Raises:
        redis.RedisError: Redis failed.
        InvalidInputError: The files hold no forecast, or an invalid one.
        RedisProblemError: Redis does not hold what was written.
        EnvironmentProblemError: Another publisher is running, or took over.
    """
    versions = Versions(namespace)
    with hold_lock(namespace) as token:
        previous, swept = versions.active(), len(versions.sweep())
        now = versions.now()
        expires_at = math.ceil(now + lifetime_s)
        if (same := _find_same(versions, reader.fingerprint)) is not None:
            same = versions.set_expiry(same, expires_at)
            if activate:
                versions.activate(same.name)
            return Publication(
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
            buckets=max(math.ceil(reader.rows / USERS_PER_BUCKET), 1),
            expires_at=expires_at,
        )
        began = time.monotonic()
        with _removed_on_failure(versions, version):
            versions.begin(version)
            users, replaced = write_version(
                namespace, version, reader, token=token, batch_rows=batch_rows, advance=advance
            )
            _check_count(namespace, reader, users, versions.count(version))
            seconds = time.monotonic() - began
            version = _complete(namespace, version, reader, users, token, activate=activate)
        return Publication(
            version=version,
            previous=previous,
            was_there=False,
            is_active=activate,
            rows=reader.rows,
            without_advertisers=reader.without_advertisers,
            from_future=reader.from_future,
            replaced=replaced,
            swept=swept,
            bytes_per_user=versions.bytes_per_user(version),
            seconds=seconds,
        )


def _check_count(namespace: Namespace, reader: ForecastReader, users: int, found: int) -> None:
    if not users:
        future = (
            f" ({reader.from_future:,} rows lie in the future by the clock of this machine)"
            if reader.from_future
            else ""
        )
        raise InvalidInputError(
            f"{reader.files.files[0] if reader.files.files else reader.files.manifest}: "
            f"no forecast in these files{future}: readers keep their version"
        )
    if found != users:
        raise RedisProblemError(
            f"{namespace.address}: wrote {users:,} users and counted {found:,}: was it restarted, "
            "or does it evict keys (maxmemory-policy)? Readers keep their version"
        )


def _complete(
    namespace: Namespace,
    version: Version,
    reader: ForecastReader,
    users: int,
    token: bytes,
    *,
    activate: bool,
) -> Version:
    address = namespace.address
    version = replace(
        version,
        users=users,
        bundle_ids=tuple(reader.bundle_ids),
        as_of_us=reader.as_of_us,
        is_complete=True,
    )
    try:
        done = Versions(namespace).complete(version, token=token, activate=activate)
    except RedisError as error:
        raise RedisProblemError(
            f"{explain(error, address)}; {version.name} was written, but it is not known whether "
            "readers use it: see --list, or run this again"
        ) from error
    if not done:
        raise LostLockError(f"{address}: another publisher has taken over; run it again")
    return version


def _name(now: float, fingerprint: str) -> str:
    began = datetime.fromtimestamp(now, UTC)
    return f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z-{fingerprint[:6]}"


def _find_same(versions: Versions, fingerprint: str) -> Version | None:
    """Return a complete version of the same files that has all its users."""
    for version in reversed(versions.all()):
        is_same = version.is_complete and version.fingerprint == fingerprint
        if is_same and versions.count(version) == version.users:
            return version
    return None


@contextmanager
def _removed_on_failure(versions: Versions, version: Version) -> Iterator[None]:
    """Drop the version on failure; if Redis is unreachable, the next run does it."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            versions.drop_unfinished(version)
        raise
