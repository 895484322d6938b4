"""A namespace on a Redis server, as the publisher uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import WatchError

from adprior_client.stored.redis_keys import Keys

Command = tuple[Any, ...]
"""A command's name and arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The place where forecasts are published.

    Attributes:
        redis: A client.
        keys: The names of its keys.
        address: The server's name, for messages.
    """

    redis: Any
    keys: Keys
    address: str

    def run(self, commands: Sequence[Command], *, is_atomic: bool = False) -> list[Any]:
        """Send commands in one exchange, in a transaction if atomic; return their answers.

        Raises:
            redis.RedisError: The error of the first command that failed, without its arguments.
        """
        with self.redis.pipeline(transaction=is_atomic) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=is_atomic)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def run_if(self, key: str, value: bytes, commands: Sequence[Command]) -> bool:
        """Run commands in a transaction if a key has a value; return whether they ran."""
        with self.redis.pipeline(transaction=True) as pipeline:
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
