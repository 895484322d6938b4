"""The versions of a namespace: the unfinished ones, the complete ones, the one that readers use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from redis import RedisError

from adprior_bulk.publish.namespace import Command, Namespace
from adprior_client.stored.redis_keys import Pointer
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

_BUCKETS_AT_ONCE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The publisher's entry for a version.

    Attributes:
        name: When it was begun (UTC), and the first digits of the fingerprint:
            ``20260101T031500.250Z-3fa9c2``.
        fingerprint: Identifies its files.
        buckets: Number of hashes that hold its users.
        users: Number of users; 0 while it is being written.
        bundle_ids: Bundles of its forecasts.
        expires_at: When it expires: seconds since 1970, by Redis' clock.
        as_of_us: The earliest and latest time of its forecasts, microseconds since 1970.
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
        """Return the stored form."""
        return to_json(asdict(self))

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the stored form.

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
        """Return the pointer to it; the complete and older ones of ``known`` are its fallbacks."""
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
    """Reads and changes the versions of a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._redis, self._keys, self._run = namespace.redis, namespace.keys, namespace.run

    def all(self) -> list[Version]:
        """Return the versions that have not expired, oldest first, without malformed entries."""
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
        """Return the name of the version that readers use, None if there is none."""
        pointer = self._pointer()
        return None if pointer is None else pointer.unexpired(self.now()).version

    def now(self) -> float:
        """Return the seconds since 1970 by Redis' clock, which decides when keys expire."""
        seconds, microseconds = self._redis.time()
        return int(seconds) + int(microseconds) / 1e6

    def begin(self, version: Version) -> None:
        """Store the entry of a version before its first bucket is written."""
        self._run(self._entry_commands(version), is_atomic=True)

    def count(self, version: Version) -> int:
        """Return how many users Redis holds."""
        return sum(
            sum(self._run([("HLEN", key) for key in keys])) for keys in self._bucket_keys(version)
        )

    def complete(self, version: Version, *, token: bytes, activate: bool) -> bool:
        """Store a complete version's entry and, in the same transaction, let it be read.

        Returns:
            False if another publisher has taken over; then nothing was changed.
        """
        commands = self._entry_commands(version)
        if activate:
            commands += self._pointer_commands(version)
        return self._namespace.run_if(self._keys.publisher, token, commands)

    def activate(self, name: str) -> Version:
        """Let readers use a complete version.

        Raises:
            InvalidInputError: There is no such version, or it has lost users.
        """
        address = self._namespace.address
        known = {version.name: version for version in self.all() if version.is_complete}
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidInputError(f"{address}: no complete version {name}; found {listed}")
        version = known[name]
        if (found := self.count(version)) != version.users:
            raise InvalidInputError(
                f"{address}: version {name} has {found:,} of its {version.users:,} users: "
                "were keys evicted? Readers keep their version"
            )
        self._run(self._pointer_commands(version), is_atomic=True)
        return version

    def set_expiry(self, version: Version, expires_at: int) -> Version:
        """Change when a complete version expires, in its keys, its entry and the pointer."""
        changed = replace(version, expires_at=expires_at)
        if expires_at < version.expires_at:  # keys never expire before the pointer says so
            self._store_expiry(changed)
        for keys in self._bucket_keys(changed):
            self._run([("EXPIREAT", key, expires_at) for key in keys])
        if expires_at >= version.expires_at:
            self._store_expiry(changed)
        return changed

    def _store_expiry(self, changed: Version) -> None:
        commands = self._entry_commands(changed)
        known = [changed if item.name == changed.name else item for item in self.all()]
        active = self.active()
        for version in known:
            if version.name == active:
                commands += self._pointer_commands(version, known)
        self._run(commands, is_atomic=True)

    def drop(self, version: Version) -> None:
        """Remove a version that is not in use; Redis frees its memory in the background."""
        for keys in self._bucket_keys(version):
            self._run([("UNLINK", *keys)])
        self._run([("HDEL", self._keys.versions, version.name)])

    def drop_unfinished(self, version: Version) -> None:
        """Remove a version unless it is complete: the answer that said so may have been lost."""
        raw = self._redis.hget(self._keys.versions, version.name)
        if raw is None or not Version.parse(raw).is_complete:
            self.drop(version)

    def sweep(self) -> list[Version]:
        """Remove the unfinished versions of killed runs, and the entries of expired versions.

        Call this only while holding the lock: otherwise another run's version would be removed.
        """
        known = self.all()
        unfinished = [version for version in known if not version.is_complete]
        for version in unfinished:
            self.drop(version)
        names = {version.name.encode() for version in known}
        if gone := [name for name in self._redis.hkeys(self._keys.versions) if name not in names]:
            self._run([("HDEL", self._keys.versions, *gone)])
        return unfinished

    def bytes_per_user(self, version: Version) -> float | None:
        """Return Redis' estimate of the memory per user, from one bucket; None if it refuses."""
        key = self._keys.bucket(version.name, 0)
        commands = [("MEMORY", "USAGE", key, "SAMPLES", 0), ("HLEN", key)]
        try:
            size, users = self._run(commands)
        except RedisError:  # the publication succeeded all the same
            return None
        if not isinstance(size, int) or not isinstance(users, int) or users == 0:
            return None
        return size / users

    def _entry_commands(self, version: Version) -> list[Command]:
        key = self._keys.versions
        others = [known.expires_at for known in self.all() if known.name != version.name]
        until = max([version.expires_at, *others])
        return [("HSET", key, version.name, version.to_json()), ("EXPIREAT", key, until)]

    def _pointer_commands(
        self, version: Version, known: Iterable[Version] | None = None
    ) -> list[Command]:
        key = self._keys.pointer
        known = self.all() if known is None else known
        # The version in use and its fallbacks: versions that were rolled back are not among them.
        before = self._pointer()
        in_use = () if before is None else {item.version for item in (before, *before.older)}
        pointer = version.pointer(item for item in known if item.name in in_use)
        until = max(item.expires_at or 0 for item in (pointer, *pointer.older))
        return [("SET", key, pointer.to_json()), ("EXPIREAT", key, until)]

    def _pointer(self) -> Pointer | None:
        """Return the stored pointer, None if there is none or it is malformed."""
        raw = self._redis.get(self._keys.pointer)
        try:
            return None if raw is None else Pointer.parse(raw)
        except ValueError:
            return None

    def _bucket_keys(self, version: Version) -> Iterator[list[str]]:
        for first in range(0, version.buckets, _BUCKETS_AT_ONCE):
            last = min(first + _BUCKETS_AT_ONCE, version.buckets)
            yield [self._keys.bucket(version.name, number) for number in range(first, last)]
