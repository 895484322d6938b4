"""One publisher at a time: a key in Redis that its holder keeps alive."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from redis import RedisError

from adprior_bulk.publish.namespace import Namespace
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.text.json_text import to_json

LIFETIME_S: Final = 30
"""The lock of a killed holder expires after this time; on the same machine it is freed at once."""
_PATIENCE_S: Final = LIFETIME_S + 5
_POLL_S: Final = 0.25
_RELEASE_ATTEMPTS: Final = 4


class LostLockError(EnvironmentProblemError):
    """Another publisher took the lock while this one was suspended."""


@contextmanager
def hold_lock(namespace: Namespace) -> Iterator[bytes]:
    """Yield our token while we hold the lock; take over the lock of a process that has died.

    Raises:
        EnvironmentProblemError: Another publisher holds it.
    """
    redis, key = namespace.redis, namespace.keys.publisher
    holder = {"machine": _machine(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    token = to_json(holder).encode()
    give_up = time.monotonic() + _PATIENCE_S
    while not redis.set(key, token, nx=True, ex=LIFETIME_S):
        found = redis.get(key)
        if found is not None and _is_dead(found):
            _release(namespace, found)
        elif time.monotonic() > give_up:
            raise EnvironmentProblemError(
                f"{namespace.address}: another publisher is running on this namespace; wait until "
                "it is done"
            )
        else:
            time.sleep(_POLL_S)
    try:
        yield token
    finally:
        _release(namespace, token)


def _release(namespace: Namespace, token: bytes) -> None:
    """Delete the lock if it still holds ``token``; if that fails, it expires.

    While a Redis is out of memory it refuses every transaction; the memory of dropped keys becomes
    free in the background.
    """
    key = namespace.keys.publisher
    for _ in range(_RELEASE_ATTEMPTS):
        try:
            namespace.run_if(key, token, [("DEL", key)])
        except RedisError:
            time.sleep(_POLL_S)
        else:
            return


def _machine() -> str:
    """Return an id of this boot and process namespace: a pid means something only within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  not a file's path
    except OSError:
        return uuid.uuid4().hex


def _is_dead(token: bytes) -> bool:
    try:
        holder = json.loads(token)
        return holder["machine"] == _machine() and not Path(f"/proc/{int(holder['pid'])}").exists()
    except (ValueError, TypeError, KeyError):
        return False
