"""One publisher at a time: a key in Redis that its holder keeps alive."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from redis import RedisError

from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.text.json_text import to_json

LIFETIME_S: Final = 30
"""A holder that was killed is out of the way after so long, on its own machine at once."""
_PATIENCE_S: Final = LIFETIME_S + 5
_POLL_S: Final = 0.25
_RELEASES: Final = 4


class LostTurnError(EnvironmentProblemError):
    """Another publisher took over while this one stood still."""


@contextmanager
def hold_turn(redis: Any, key: str, address: str) -> Iterator[str]:
    """Yield our token while we hold the key; a killed holder's is taken over, a living one's not.

    Args:
        redis: A client.
        key: `Keys.publisher`.
        address: The server's name, for messages.

    Raises:
        EnvironmentProblemError: Another publisher is at work.
    """
    token = to_json({"machine": _machine(), "pid": os.getpid(), "id": uuid.uuid4().hex})
    give_up = time.monotonic() + _PATIENCE_S
    while not redis.set(key, token, nx=True, ex=LIFETIME_S):
        holder = redis.get(key)
        if holder is not None and _is_dead(holder):
            _release(redis, key, holder)
        elif time.monotonic() > give_up:
            raise EnvironmentProblemError(
                f"{address}: another publisher is at work on this namespace; wait until it is done"
            )
        else:
            time.sleep(_POLL_S)
    try:
        yield token
    finally:
        _release(redis, key, token.encode())


def _release(redis: Any, key: str, token: bytes) -> None:
    """Remove the key if it still holds ``token``; where that fails, it expires.

    A Redis that is out of memory takes no command inside a transaction, whatever it does, until
    what was unlinked is freed in its background.
    """
    for _ in range(_RELEASES):
        try:
            _release_once(redis, key, token)
        except RedisError:
            time.sleep(_POLL_S)
        else:
            return


def _release_once(redis: Any, key: str, token: bytes) -> None:
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.watch(key)
        if pipeline.get(key) == token:
            pipeline.multi()
            pipeline.delete(key)
            pipeline.execute()


def _machine() -> str:
    """Return what tells this boot and process namespace from others: only there a pid says much."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  not a file's path
    except OSError:
        return uuid.uuid4().hex


def _is_dead(holder: bytes) -> bool:
    try:
        about = json.loads(holder)
        return about["machine"] == _machine() and not Path(f"/proc/{int(about['pid'])}").exists()
    except (ValueError, TypeError, KeyError):
        return False
