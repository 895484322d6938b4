"""Where stored forecasts are in Redis, for who writes them and who reads them.

::

    NAMESPACE:current            string  the pointer: JSON of `Pointer`, read by every client
    NAMESPACE:versions           hash    version -> JSON, what the publisher knows of it
    NAMESPACE:publisher          string  the one publisher at work; gone within seconds of its death
    NAMESPACE:VERSION:BUCKET     hash    user's field -> record (`redis_record`)

A version is written whole before the pointer names it, and never changed after that, so a reader
that follows the pointer sees one version or the other. The pointer also names the older versions
that were read before it: when it has expired, the newest of those is read that has not.

Users share buckets (hashes), which saves what Redis keeps for each key with a lifetime, and makes a
version quick to count and to drop.
A user's bucket is the CRC-32 of their field, modulo the pointer's number of buckets.
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
USERS_A_BUCKET: Final = 1900
"""On average. A bucket's hash table has 2,048 places and doubles beyond: 1,900 is 3.4 standard
deviations of a Poisson count below that."""

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:{}-]{1,100}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one namespace's keys.

    Raises:
        InvalidInputError: The namespace has other characters than letters, digits and ``_.:{}-``.
    """

    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        """Refuse what would make keys hard to tell apart."""
        if not isinstance(self.namespace, str) or not _NAMESPACE.fullmatch(self.namespace):
            raise InvalidInputError(
                f"namespace: found {self.namespace!r}, expected letters, digits and _.:{{}}-"
            )

    @property
    def pointer(self) -> str:
        """Names the version that is read."""
        return f"{self.namespace}:current"

    @property
    def versions(self) -> str:
        """What is known of each version."""
        return f"{self.namespace}:versions"

    @property
    def publisher(self) -> str:
        """Who is writing."""
        return f"{self.namespace}:publisher"

    def bucket(self, version: str, number: int) -> str:
        """Return the key of one bucket of users."""
        return f"{self.namespace}:{version}:{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Which version is read, and how.

    Attributes:
        version: Its name.
        buckets: How many its users are spread over.
        users: How many it has.
        bundle_ids: The bundles that its records refer to, by place.
        layout: Of its records.
        expires_at: When it will be gone, in seconds since 1970; None where it is not told.
        older: Older versions that were read before it, newest first.
    """

    version: str
    buckets: int
    users: int
    bundle_ids: tuple[str, ...]
    layout: int = LAYOUT
    expires_at: int | None = None
    older: tuple[Pointer, ...] = ()

    def to_json(self) -> str:
        """Return it as it is stored."""
        return to_json(asdict(self))

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            CorruptRecordError: It is malformed, or of another layout.
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

    def living(self, now: float) -> Pointer:
        """Return what is read at a time: the version, or the first older one when it has expired.

        Where all have, the clock is wrong, for the pointer would be gone: then the version itself.
        """
        for pointer in (self, *self.older):
            if pointer.expires_at is None or pointer.expires_at > now:
                return pointer
        return self

    def bucket_of(self, field: bytes) -> int:
        """Return the number of the bucket that a user's field is in."""
        return zlib.crc32(field) % self.buckets


def field_of(user_id: UserId) -> bytes:
    """Return a user's field: text and numbers that look the same stay two users.

    Raises:
        TypeError: It is neither text nor an integer.
    """
    if isinstance(user_id, str):
        return b"s" + user_id.encode("utf-8", "surrogatepass")
    if isinstance(user_id, int | np.integer) and not isinstance(user_id, bool):
        return b"i%d" % user_id
    raise TypeError(f"user_id: found {type(user_id).__name__}, expected text or an integer")
