"""The users of a shard, and as much of each as it takes to tell whether they are due.

Most users of a day are not. So a candidate knows when its user last did something, and makes the
context only when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, Self

import pyarrow as pa

from adprior_bulk.inputs.assembly import assemble
from adprior_bulk.inputs.incremental import events_digest
from adprior_bulk.inputs.staging import read_shard, rows_by_user
from adprior_bulk.run.settings import Inputs
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import UserContext, parse_context

_CONTEXT: Final = "context"


class Candidate(Protocol):
    """A user who may be due."""

    @property
    def as_of(self) -> datetime:
        """The time that their forecast would be for."""
        ...

    @property
    def last_activity(self) -> datetime | None:
        """Their last event, if any."""
        ...

    def digest(self, start: datetime, end: datetime) -> int:
        """Return `events_digest` of their events.

        Raises:
            AdpriorError: An event is wrong.
        """
        ...

    def context(self) -> tuple[bytes, UserContext]:
        """Return their context, as JSON and parsed.

        Raises:
            AdpriorError: An event is wrong.
        """
        ...


Found = tuple[str | None, Candidate | Exception]
"""A user's id, and the user or what is wrong with their rows."""


@dataclass(frozen=True, slots=True)
class GivenUser:
    """A user whose context was given."""

    raw: bytes
    parsed: UserContext

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """Parse a context.

        Raises:
            InvalidRequestError: It is none.
        """
        return cls(raw, parse_context(raw))

    @property
    def as_of(self) -> datetime:
        """See `Candidate.as_of`."""
        return self.parsed.as_of

    @property
    def last_activity(self) -> datetime | None:
        """See `Candidate.last_activity`."""
        return self.parsed.history[-1].time if self.parsed.history else None

    def digest(self, start: datetime, end: datetime) -> int:
        """See `Candidate.digest`."""
        return events_digest(self.parsed.history, start, end)

    def context(self) -> tuple[bytes, UserContext]:
        """See `Candidate.context`."""
        return self.raw, self.parsed


def read_candidates(
    inputs: Inputs,
    directory: Path,
    shard: int,
    shards: int,
    as_of: datetime,
    counts: Counter[str],
) -> Iterator[Found]:
    """Yield the users of a shard, each once, by id; rows without an id first, as None.

    Args:
        inputs: What was staged.
        directory: Where.
        shard: Which shard.
        shards: Of how many.
        as_of: With events, the time the contexts are for: only events strictly before it are in
            them, and users without any are left out.
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
    """Yield contexts as they were given; of a user who comes twice, the last."""
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
                yield user_id, GivenUser.of(raw)
            except Exception as error:  # noqa: BLE001  one user's failure is not the others'
                yield user_id, error
