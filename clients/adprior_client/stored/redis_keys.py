"""The keys of stored forecasts in Redis, for writers and readers.

::

    NAMESPACE:current            string  the pointer: JSON of `Pointer`, read by every client
    NAMESPACE:versions           hash    version -> JSON, the publisher's notes about it
    NAMESPACE:publisher          string  the running publisher's lock; expires seconds after it dies
    NAMESPACE:VERSION:BUCKET     hash    user's field -> record (`redis_record`)

A version is complete before the pointer names it, and does not change after that, so a reader that
follows the pointer sees one whole version. The pointer also names older versions. If the current
version has expired, readers use the newest older version that has not.

Users share buckets (hashes): Redis needs less memory than with a key per user, and versions are
quick to count and to delete. A user's bucket is the CRC-32 of their field, modulo the pointer's
number of buckets.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from adprior_client.stored.redis_record import LAYOUT, MOST_BUNDLES, CorruptRecordError
from adprior_client.types import UserId
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

DEFAULT_NAMESPACE: Final = "adprior"
USERS_PER_BUCKET: Final = 1900
"""The average. A bucket's hash table has 2,048 places and doubles beyond that. For a Poisson count
with this mean, 2,048 is 3.4 standard deviations above it."""

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:{}-]{1,100}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one namespace's keys.

    Raises:
        InvalidInputError: The namespace has other characters than letters, digits and ``_.:{}-``.
    """

    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        """Refuse characters that could make two keys equal."""
        if not isinstance(self.namespace, str) or not _NAMESPACE.fullmatch(self.namespace):
            raise InvalidInputError(
                f"namespace: found {self.namespace!r}, expected letters, digits and _.:{{}}-"
            )

    @property
    def pointer(self) -> str:
        """The key of the pointer to the current version."""
        return f"{self.namespace}:current"

    @property
    def versions(self) -> str:
        """The key of the publisher's notes about each version."""
        return f"{self.namespace}:versions"

    @property
    def publisher(self) -> str:
        """The key of the running publisher's lock."""
        return f"{self.namespace}:publisher"

    def bucket(self, version: str, number: int) -> str:
        """Return the key of one bucket of users."""
        return f"{self.namespace}:{version}:{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """The current version, and how to read it.

    Attributes:
        version: Its name.
        buckets: Number of buckets.
        users: Number of users.
        bundle_ids: The bundles of its records, which refer to them by place.
        layout: The layout of its records.
        expires_at: When it expires, in seconds since 1970; None if unknown.
        older: The versions that were current before it, newest first.
    """

    version: str
    buckets: int
    users: int
    bundle_ids: tuple[str, ...]
    layout: int = LAYOUT
    expires_at: int | None = None
    older: tuple[Pointer, ...] = ()

    def to_json(self) -> str:
        """Return the stored form."""
        return to_json(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Read the stored form.

        Raises:
            CorruptRecordError: It is malformed, or has another layout.
        """
        try:
            return cls._of(json.loads(raw))
        except CorruptRecordError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptRecordError(f"a malformed pointer: {type(error).__name__}") from None

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        found = cls(
            version=values["version"],
            buckets=values["buckets"],
            users=values["users"],
            bundle_ids=tuple(values["bundle_ids"]),
            layout=values["layout"],
            expires_at=values.get("expires_at"),
            older=tuple(cls._of(older) for older in values.get("older", ())),
        )
        if found.layout != LAYOUT:
            raise CorruptRecordError("a pointer of another layout")
        numbers = (found.buckets, found.users)
        if any(type(number) is not int or number < 1 for number in numbers):
            raise CorruptRecordError("a malformed pointer: buckets and users")
        if found.expires_at is not None and type(found.expires_at) is not int:
            raise CorruptRecordError("a malformed pointer: expires_at")
        texts = (found.version, *found.bundle_ids)
        if not all(isinstance(text, str) for text in texts) or len(texts) > MOST_BUNDLES + 1:
            raise CorruptRecordError("a malformed pointer: version and bundle ids")
        return found

    def unexpired(self, now: float) -> Pointer:
        """Return the version to read at a time: the newest that has not expired.

        If all have expired, the clock is wrong (the pointer would be gone): return the current one.
        """
        for pointer in (self, *self.older):
            if pointer.expires_at is None or pointer.expires_at > now:
                return pointer
        return self

    def bucket_of(self, field: bytes) -> int:
        """Return the number of a field's bucket."""
        return zlib.crc32(field) % self.buckets


def field_of(user_id: UserId) -> bytes:
    """Return a user's field in a bucket; the text ``7`` and the number 7 are two users.

    Raises:
        TypeError: The id is neither text nor an integer.
    """
    if isinstance(user_id, str):
        return b"s" + user_id.encode("utf-8", "surrogatepass")
    if isinstance(user_id, int | np.integer) and not isinstance(user_id, bool):
        return b"i%d" % user_id
    raise TypeError(f"user_id: found {type(user_id).__name__}, expected text or an integer")
