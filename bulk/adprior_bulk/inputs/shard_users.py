"""The users of a shard.

On most days most users are not due for a forecast. So a user from a log knows the time of their
last event, and their context is made only on request.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from adprior_bulk.inputs.assembly import AssembledUser, assemble
from adprior_bulk.inputs.pieces import Inputs
from adprior_bulk.inputs.staging import read_shard, rows_by_user
from adprior_client.user_context import CheckedContext
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event, UserContext, parse_context

_CONTEXT: Final = "context"


@dataclass(frozen=True, slots=True)
class GivenUser:
    """A user from an input that holds contexts."""

    raw: CheckedContext
    parsed: UserContext

    @property
    def as_of(self) -> datetime:
        """The time of the next forecast."""
        return self.parsed.as_of

    @property
    def last_activity(self) -> datetime | None:
        """The time of the last event, if any."""
        return self.parsed.history[-1].time if self.parsed.history else None

    def events_between(self, start: datetime, end: datetime) -> Sequence[Event]:
        """Return the events from ``start`` to ``end``, both included."""
        history = self.parsed.history
        first = bisect_left(history, start, key=lambda event: event.time)
        stop = bisect_right(history, end, key=lambda event: event.time)
        return history[first:stop]

    def context(self) -> tuple[CheckedContext, UserContext]:
        """Return the context, as JSON and parsed."""
        return self.raw, self.parsed


ShardUser = GivenUser | AssembledUser

Found = tuple[str | None, ShardUser | Exception]
"""A user's id, and the user or what is wrong with their rows."""


def read_shard_users(
    inputs: Inputs,
    directory: Path,
    shard: int,
    shards: int,
    as_of: datetime,
    counts: Counter[str],
) -> Iterator[Found]:
    """Yield each user of a shard once, sorted by id; rows without an id first, under None.

    Args:
        inputs: The run's inputs.
        directory: Where they are staged.
        shard: The shard's number.
        shards: The number of shards.
        as_of: With events, the time of the forecasts: contexts hold only earlier events, and users
            without any are left out.
        counts: See `assemble`.
    """
    if inputs.users is not None:
        table = read_shard(directory, "users", shard, shards)
        yield from () if table is None else _given(table)
        return
    if inputs.columns is None:
        raise InvalidInputError("events need a column map")
    events = read_shard(directory, "events", shard, shards)
    if events is not None:
        profiles = read_shard(directory, "profiles", shard, shards)
        yield from assemble(events, profiles, inputs.columns, inputs.names or {}, as_of, counts)


def _given(table: pa.Table) -> Iterator[Found]:
    """Yield contexts as they were given; the last of a user who comes twice."""
    try:
        contexts = table[_CONTEXT].cast(pa.large_binary()).combine_chunks()
    except pa.ArrowException as error:
        kind = table[_CONTEXT].type
        raise InvalidInputError(
            f"users: {_CONTEXT} is of type {kind}, expected text: the user context's JSON"
        ) from error
    for user_id, rows in rows_by_user(table):
        raw = contexts[int(rows[-1])].as_py()
        if user_id is None:
            yield None, InvalidInputError(f"users: {len(rows)} rows without user_id")
        elif raw is None:
            yield user_id, InvalidInputError("users: context is null")
        else:
            try:
                yield user_id, GivenUser(CheckedContext(raw), parse_context(raw))
            except Exception as error:  # noqa: BLE001  one user's failure must not stop the others
                yield user_id, error
