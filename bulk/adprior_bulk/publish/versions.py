"""The versions of one namespace in Redis: which there are, which are whole, which is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from redis import RedisError, WatchError

from adprior_bulk.publish.pipelining import run_all
from adprior_client.stored.redis_keys import Keys, Pointer
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

_BUCKETS_AT_ONCE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the publisher knows of a version.

    Attributes:
        name: When it was begun (UTC), and of what: ``20260101T031500.250Z-3fa9c2``.
        fingerprint: Of the files it was made of.
        buckets: How many its users are spread over.
        users: How many it has; 0 while it is being written.
        bundle_ids: Of its forecasts.
        expires_at: When it will be gone: seconds since 1970, on Redis' clock.
        as_of_us: The earliest and latest time of its forecasts.
        is_complete: Whether it may be read.
    """

    name: str
    fingerprint: str
    buckets: int
    expires_at: int
    users: int = 0
    bundle_ids: tuple[str, ...] = ()
    as_of_us: tuple[int, int] | None = None
    is_complete: bool = False

    def to_json(self) -> str:
        """Return it as it is stored."""
        return to_json(asdict(self))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is malformed.
        """
        try:
            values = json.loads(raw)
            times = values["as_of_us"]
            values["as_of_us"] = None if times is None else (int(times[0]), int(times[1]))
            return cls(**values | {"bundle_ids": tuple(values["bundle_ids"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(type(error).__name__) from None

    def pointer(self, known: Iterable[Version] = ()) -> Pointer:
        """Return what readers are told of it, with the whole older ones of ``known``."""
        ordered = sorted(known, key=lambda item: item.name, reverse=True)
        older = [o.pointer() for o in ordered if o.is_complete and o.name < self.name]
        return Pointer(
            version=self.name,
            buckets=self.buckets,
            users=self.users,
            bundle_ids=self.bundle_ids,
            expires_at=self.expires_at,
            older=tuple(older),
        )


class Versions:
    """Reads and changes them.

    Args:
        redis: A client.
        keys: Of the namespace.
        address: The server's name, for messages.
    """

    def __init__(self, redis: Any, keys: Keys, address: str) -> None:
        self._redis = redis
        self._keys = keys
        self._address = address

    def all(self) -> list[Version]:
        """Return the versions that have not expired, oldest first, and none that is malformed."""
        now = self.now()
        found = []
        for raw in self._redis.hgetall(self._keys.versions).values():
            try:
                version = Version.parse(raw)
            except ValueError:
                continue
            if version.expires_at > now:
                found.append(version)
        return sorted(found, key=lambda version: version.name)

    def active(self) -> str | None:
        """Return the name of the version that is read, None where there is none."""
        raw = self._redis.get(self._keys.pointer)
        try:
            return None if raw is None else Pointer.parse(raw).living(self.now()).version
        except ValueError:
            return None

    def now(self) -> float:
        """Return the seconds since 1970 on Redis' clock, which lifetimes go by."""
        seconds, microseconds = self._redis.time()
        return int(seconds) + int(microseconds) / 1e6

    def begin(self, version: Version) -> None:
        """Take note of a version before its first bucket is written."""
        run_all(self._redis, self._noted(version), is_atomic=True)

    def count(self, version: Version) -> int:
        """Return how many users are there."""
        return sum(
            sum(run_all(self._redis, [("HLEN", key) for key in keys]))
            for keys in self._bucket_keys(version)
        )

    def complete(self, version: Version, *, holder: str, activate: bool) -> bool:
        """Say that a version is whole and, in the same step, let it be read.

        Returns:
            False where another publisher has taken over, and nothing was changed.
        """
        whole = replace(version, is_complete=True)
        commands = self._noted(whole) + (self._pointing(whole) if activate else [])
        return self._if_unchanged(self._keys.publisher, holder.encode(), commands)

    def activate(self, name: str) -> Version:
        """Let a version be read that is there and whole.

        Raises:
            InvalidInputError: There is none of that name, or it is not whole any more.
        """
        known = {version.name: version for version in self.all() if version.is_complete}
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidInputError(f"{self._address}: no complete version {name}; found {listed}")
        version = known[name]
        if (found := self.count(version)) != version.users:
            raise InvalidInputError(
                f"{self._address}: version {name} has {found:,} of its {version.users:,} users: "
                "were keys evicted? Readers keep the version that they had"
            )
        run_all(self._redis, self._pointing(version), is_atomic=True)
        return version

    def set_end(self, version: Version, expires_at: int) -> Version:
        """Let a whole version live longer or less long; the pointer goes along."""
        changed = replace(version, expires_at=expires_at)
        if expires_at < version.expires_at:  # whoever is told of it never finds less than that
            self._tell_end(changed)
        for keys in self._bucket_keys(changed):
            run_all(self._redis, [("EXPIREAT", key, expires_at) for key in keys])
        if expires_at >= version.expires_at:
            self._tell_end(changed)
        return changed

    def _tell_end(self, changed: Version) -> None:
        commands = self._noted(changed)
        known = [changed if item.name == changed.name else item for item in self.all()]
        active = self.active()
        for version in known:
            if version.name == active:
                commands += self._pointing(version, known)
        run_all(self._redis, commands, is_atomic=True)

    def drop(self, version: Version) -> None:
        """Remove a version that is not read; its memory is freed in the background."""
        for keys in self._bucket_keys(version):
            run_all(self._redis, [("UNLINK", *keys)])
        run_all(self._redis, [("HDEL", self._keys.versions, version.name)])

    def drop_unfinished(self, version: Version) -> None:
        """Remove a version unless it became whole: the answer that said so may have been lost."""
        raw = self._redis.hget(self._keys.versions, version.name)
        if raw is None or not Version.parse(raw).is_complete:
            self.drop(version)

    def sweep(self) -> list[Version]:
        """Remove what killed runs left, and the notes of versions that expired.

        Only the publisher at work may do so: its own unfinished version would go too.
        """
        living = self.all()
        unfinished = [version for version in living if not version.is_complete]
        for version in unfinished:
            self.drop(version)
        names = {version.name.encode() for version in living}
        if gone := [name for name in self._redis.hkeys(self._keys.versions) if name not in names]:
            run_all(self._redis, [("HDEL", self._keys.versions, *gone)])
        return unfinished

    def bytes_a_user(self, version: Version) -> float | None:
        """Return Redis' own estimate of a user's memory, by one bucket; None where it refuses."""
        key = self._keys.bucket(version.name, 0)
        commands = [("MEMORY", "USAGE", key, "SAMPLES", 0), ("HLEN", key)]
        try:
            size, users = run_all(self._redis, commands, tolerates=True)
        except RedisError:  # the version is there all the same
            return None
        if not isinstance(size, int) or not isinstance(users, int) or users == 0:
            return None
        return size / users

    def _noted(self, version: Version) -> list[tuple[Any, ...]]:
        key = self._keys.versions
        others = [known.expires_at for known in self.all() if known.name != version.name]
        until = max([version.expires_at, *others])
        return [("HSET", key, version.name, version.to_json()), ("EXPIREAT", key, until)]

    def _pointing(
        self, version: Version, known: Iterable[Version] | None = None
    ) -> list[tuple[Any, ...]]:
        key = self._keys.pointer
        were_read = self._read_so_far()
        known = self.all() if known is None else known
        pointer = version.pointer(item for item in known if item.name in were_read)
        until = max(item.expires_at or 0 for item in (pointer, *pointer.older))
        return [("SET", key, pointer.to_json()), ("EXPIREAT", key, until)]

    def _read_so_far(self) -> set[str]:
        """Return the version that is read and those before it, from which nobody went back."""
        raw = self._redis.get(self._keys.pointer)
        try:
            pointer = None if raw is None else Pointer.parse(raw)
        except ValueError:
            pointer = None
        return set() if pointer is None else {item.version for item in (pointer, *pointer.older)}

    def _if_unchanged(self, key: str, value: bytes, commands: list[tuple[Any, ...]]) -> bool:
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(key)
            if pipeline.get(key) != value:
                return False
            pipeline.multi()
            for command in commands:
                pipeline.execute_command(*command)
            try:
                pipeline.execute()
            except WatchError:
                return False
        return True

    def _bucket_keys(self, version: Version) -> Iterator[list[str]]:
        for first in range(0, version.buckets, _BUCKETS_AT_ONCE):
            last = min(first + _BUCKETS_AT_ONCE, version.buckets)
            yield [self._keys.bucket(version.name, number) for number in range(first, last)]
