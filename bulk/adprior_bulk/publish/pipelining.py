"""Many commands to Redis in one exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def run_all(
    redis: Any,
    commands: Sequence[tuple[Any, ...]],
    *,
    is_atomic: bool = False,
    tolerates: bool = False,
) -> list[Any]:
    """Send commands together and return their answers.

    Args:
        redis: A client.
        commands: Each its name and arguments.
        is_atomic: Whether nobody may see some of them done and others not.
        tolerates: Whether errors are returned among the answers.

    Raises:
        redis.RedisError: The first command's that failed, without its arguments.
    """
    with redis.pipeline(transaction=is_atomic) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=is_atomic)
    if not tolerates:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    return answers
